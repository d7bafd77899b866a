"""Reads the last messages of subjects. Calls for single subjects share requests."""

import asyncio
from collections.abc import Mapping, Sequence

from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage
from shared.errors import BusUnavailableError

_BATCH = 200
"""Subjects in a request; the server takes at most 1,024."""

_REQUESTS_IN_FLIGHT = 2
"""One request is answered while the next is sent."""


_Caller = asyncio.Future[StoredMessage | None]


class LastMessages:
    """The last message of each subject of a stream."""

    def __init__(self, bus: Bus, stream: str) -> None:
        self._bus = bus
        self._stream = stream
        self._waiting: dict[str, list[_Caller]] = {}
        self._reading = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, subject: str) -> StoredMessage | None:
        """Return the last message, no older than the start of this call, or None if there is none.

        Raises:
            BusUnavailableError: NATS does not answer.
        """
        # A waiting subject has not been requested yet, so the response will be recent enough.
        found: _Caller = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(subject, []).append(found)
        if self._reading < _REQUESTS_IN_FLIGHT:
            self._reading += 1
            task = asyncio.create_task(self._read_waiting())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await found

    async def _read_waiting(self) -> None:
        try:
            await asyncio.sleep(0)  # callers in the same iteration of the event loop share a request
            while self._waiting:
                batch = {subject: self._waiting.pop(subject) for subject in list(self._waiting)[:_BATCH]}
                await self._answer(batch)
        finally:
            self._reading -= 1  # immediately, so that no caller relies on a reader that has stopped looking

    async def _answer(self, batch: Mapping[str, Sequence[_Caller]]) -> None:
        waiting = [(subject, caller) for subject, callers in batch.items() for caller in callers]
        try:
            found = await self._read(list(batch))
        except Exception as exc:  # noqa: BLE001 - it is raised where the messages are awaited
            for _, caller in waiting:
                if not caller.done():
                    caller.set_exception(exc)
        else:
            for subject, caller in waiting:
                if not caller.done():
                    caller.set_result(found.get(subject))
        finally:
            for _, caller in waiting:
                caller.cancel()  # if this task is cancelled

    async def _read(self, subjects: Sequence[str]) -> Mapping[str, StoredMessage]:
        found: dict[str, StoredMessage] = {}
        left = subjects
        while left:
            answer = await self._bus.last_messages(self._stream, left)
            found |= {message.subject: message for message in answer.messages}
            if answer.is_complete:
                break
            if not answer.messages:
                raise BusUnavailableError(
                    f"{self._stream}: the response was truncated before its first message"
                )
            left = [subject for subject in left if subject not in found]
        return found
