"""An index of the suppression list, in memory.

Almost no pair of addresses has ever opted out. The index contains the few subjects of SUPPRESSIONS that have
a message, so that only their state has to be read. One request for the newest messages of the stream brings
it up to date for all waiting callers.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage
from shared.bus.topology import Stream
from shared.errors import BusUnavailableError

_BATCH = 1_000
"""Messages in a response."""

_ALL = "suppression.>"

_MISSING_SECONDS = 5.0
"""A replica may lack the newest message for some milliseconds. If it is missing for longer than this, the
stream has been replaced."""


class SuppressionIndex:
    """The subjects of SUPPRESSIONS that have a message."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subjects: set[str] = set()
        self._newest: StoredMessage | None = None
        self._missing_since: float | None = None
        self._is_current = False
        self._reading: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def with_messages(self, subjects: Iterable[str]) -> list[str]:
        """Return the subjects that may have a message and therefore have to be read.

        A message that was stored before this call is never overlooked. While the index is being loaded, all
        subjects have to be read.

        Raises:
            BusUnavailableError: NATS does not answer.
        """
        refreshing = self._refresh()
        if self._is_current:
            await asyncio.shield(refreshing)
        if not self._is_current:
            return list(subjects)
        return [subject for subject in subjects if subject in self._subjects]

    def _refresh(self) -> asyncio.Task[None]:
        """Return a task that reads everything that has been stored up to now.

        Callers share a task that has not made its request yet. A request in flight may have been answered
        before a change that the caller knows about.
        """
        if not self._is_current and self._reading and not self._reading.done():
            return self._reading  # the index is not used before it is loaded
        if self._next is None or self._next.done():  # it has been cancelled before it began
            self._next = asyncio.create_task(self._read_after(self._reading))
            self._next.add_done_callback(_retrieve)
        return self._next

    async def _read_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is None:
            await asyncio.sleep(0)  # callers in the same iteration of the event loop share the request
        else:
            await asyncio.wait({earlier})
        self._reading, self._next = self._next, None
        while await self._read_batch():
            pass

    async def _read_batch(self) -> bool:
        """Read the next messages, and return whether there are more."""
        # The newest known message is read again. It shows that the stream is still the same: it may have
        # been restored from an older copy, with other messages at the known sequences.
        known = self._newest
        first = known.sequence if known else 1
        answer = await self._bus.next_messages(Stream.SUPPRESSIONS, first, count=_BATCH, subject=_ALL)
        if known and not self._is_continued(known, answer.messages):
            return False
        self._subjects.update(message.subject for message in answer.messages)
        if answer.messages:
            self._newest = answer.messages[-1]
        self._is_current = answer.is_complete
        return not answer.is_complete

    def _is_continued(self, known: StoredMessage, messages: list[StoredMessage]) -> bool:
        now = asyncio.get_running_loop().time()
        if messages and messages[0] == known:
            self._missing_since = None
            return True
        self._is_current = False
        self._missing_since = self._missing_since or now
        if messages or now - self._missing_since > _MISSING_SECONDS:
            self._subjects.clear()
            self._newest = self._missing_since = None
        return False


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve the exception of a task that may not be awaited, so that asyncio does not log it."""
    with suppress(asyncio.CancelledError, BusUnavailableError):
        task.result()
