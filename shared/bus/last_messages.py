"""Reading the last message of subjects: one by one for its callers, several in one request underneath."""

import asyncio
from collections.abc import Mapping, Sequence

from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage, direct_get
from shared.errors import BusUnavailableError

_BATCH = 200
"""Subjects in a request; the server takes at most 1,024."""

_REQUESTS_IN_FLIGHT = 2
"""One is answered while the next is sent."""

Waiting = dict[str, asyncio.Future[StoredMessage | None]]


class LastMessages:
    """The last message of each subject of a stream."""

    def __init__(self, bus: Bus, stream: str) -> None:
        self._bus = bus
        self._stream = stream
        self._waiting: Waiting = {}
        self._readers: set[asyncio.Task[None]] = set()

    async def get(self, subject: str) -> StoredMessage | None:
        """Return the last message as it is after this call began, or None if there is none.

        Raises:
            BusUnavailableError: NATS does not answer.
        """
        # A subject that waits already has not been requested yet, so its answer is new enough.
        found = self._waiting.get(subject)
        if found is None:
            found = self._waiting[subject] = asyncio.get_running_loop().create_future()
        if len(self._readers) < _REQUESTS_IN_FLIGHT:
            reader = asyncio.create_task(self._read_waiting())
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        return await asyncio.shield(found)

    async def _read_waiting(self) -> None:
        await asyncio.sleep(0)  # callers in the same turn of the loop share a request
        while self._waiting:
            batch = {subject: self._waiting.pop(subject) for subject in list(self._waiting)[:_BATCH]}
            try:
                found = await self._read(list(batch))
            except BusUnavailableError as exc:
                for future in batch.values():
                    future.set_exception(exc)
                    future.exception()  # the caller may be gone
            else:
                for subject, future in batch.items():
                    future.set_result(found.get(subject))

    async def _read(self, subjects: Sequence[str]) -> Mapping[str, StoredMessage]:
        found: dict[str, StoredMessage] = {}
        left = list(subjects)
        while left:
            if len(left) == 1:
                result = await direct_get(self._bus, self._stream, {"last_by_subj": left[0]}, answers=1)
            else:
                result = await direct_get(self._bus, self._stream, {"multi_last": left})
            found |= {message.subject: message for message in result.messages}
            # The server cuts an answer that is too large; what it has left out is requested again.
            left = [] if result.is_complete else [subject for subject in left if subject not in found]
        return found
