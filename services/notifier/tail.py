"""The newest messages of a stream, which all endpoints of this process read together.

An endpoint that keeps up reads from memory. One that is behind reads the stream itself, so that it neither
holds up the others nor costs memory.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

import structlog

from shared import supervision
from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage
from shared.errors import BusUnavailableError

_log = structlog.get_logger()

_BATCH = 500
_ERROR_PAUSE = 0.5
_CHECK_EVERY = 300
"""The number of reads after which the tail checks that the stream is still the same."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A message of the stream; `value` is None if it cannot be read, or is of no interest."""

    sequence: int
    value: T | None
    stored_at: str


_SEQUENCE = attrgetter("sequence")


class Tail(Generic[T]):
    """The newest messages of a stream.

    Args:
        bus: the connection.
        stream: the name of the stream.
        subject: the pattern of the messages.
        parse: turns a message into a value, or into None.
        interval: seconds between two reads.
        capacity: how many messages are kept in memory.

    Attributes:
        last: the sequence up to which the stream was read.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        subject: str,
        parse: Callable[[StoredMessage], T | None],
        *,
        interval: float,
        capacity: int = 4_000,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._subject = subject
        self._parse = parse
        self._interval = interval
        self._recent: deque[Entry[T]] = deque(maxlen=capacity)
        self._since = 0
        """The sequence after which `_recent` is complete."""
        self.last = 0
        self._is_open = asyncio.Event()
        self._listeners: set[Callable[[], None]] = set()

    @property
    def is_open(self) -> bool:
        return self._is_open.is_set()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function whenever there are new messages."""
        self._listeners.add(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        self._listeners.discard(listener)

    async def run(self) -> None:
        """Read until the task is cancelled."""
        reads = 0
        while True:
            supervision.beat()
            try:
                await supervision.patiently(self._bus.until_connected())
                if not self.is_open or reads % _CHECK_EVERY == 0:
                    await self._check()
                reads += 1
                is_complete = await supervision.patiently(self._read())
            except BusUnavailableError as exc:
                if self._bus.is_connected:
                    _log.warning("tail_unavailable", stream=self._stream, error=str(exc))
                await asyncio.sleep(_ERROR_PAUSE)
            else:
                await asyncio.sleep(self._interval if is_complete else 0)

    async def newest(self) -> int:
        """Return the sequence of the newest message, or 0.

        Raises:
            BusUnavailableError: NATS does not respond.
        """
        answer = await self._bus.last_messages(self._stream, [self._subject])
        return answer.messages[0].sequence if answer.messages else 0

    async def after(
        self, position: int, wanted: Callable[[T], bool], count: int, *, subject: str | None = None
    ) -> tuple[list[Entry[T]], int]:
        """Return messages after a position, and the position up to which they are complete.

        Args:
            position: a sequence.
            wanted: selects messages.
            count: the maximum number of messages.
            subject: a narrower pattern, for a position that is not in memory any more.

        Raises:
            BusUnavailableError: NATS does not respond.
        """
        await self._is_open.wait()
        if position >= self._since:
            start = bisect_right(self._recent, position, key=_SEQUENCE)
            entries, end = [self._recent[index] for index in range(start, len(self._recent))], self.last
        else:
            entries, end = await self._older(position, subject or self._subject)
        found: list[Entry[T]] = []
        for entry in entries:
            if entry.value is None or not wanted(entry.value):
                continue
            if len(found) == count:
                return found, found[-1].sequence
            found.append(entry)
        return found, max(position, end)

    async def _older(self, position: int, subject: str) -> tuple[list[Entry[T]], int]:
        since = self._since
        answer = await self._bus.next_messages(self._stream, position + 1, count=_BATCH, subject=subject)
        entries = [self._entry(message) for message in answer.messages]
        end = entries[-1].sequence if entries else position
        # Not up to `last`: the replica that responded may not have the newest messages, but memory has.
        return entries, max(end, since) if answer.is_complete else end

    async def _check(self) -> None:
        """Start at the end of the stream; later, make sure that it has not been replaced by an older copy."""
        newest = await supervision.patiently(self.newest())
        if not self.is_open:
            self.last = self._since = newest
            self._is_open.set()
        elif 0 < newest < self.last:
            supervision.fail(f"{self._stream} was replaced by an older copy")

    async def _read(self) -> bool:
        answer = await self._bus.next_messages(
            self._stream, self.last + 1, count=_BATCH, subject=self._subject
        )
        for message in answer.messages:
            if len(self._recent) == self._recent.maxlen:
                self._since = self._recent[0].sequence
            self._recent.append(self._entry(message))
            self.last = message.sequence
        if answer.messages:
            for listener in [*self._listeners]:
                listener()
        return answer.is_complete

    def _entry(self, message: StoredMessage) -> Entry[T]:
        return Entry(message.sequence, self._parse(message), message.stored_at)
