"""Reads the events for applications from their stream.

While there are readers, a task follows the end of the stream and renders each event once for all of them. It
keeps the newest events, up to a limit. A reader that is further behind reads the stream by itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import structlog

from shared import supervision
from shared.bus.client import Bus
from shared.bus.streams import Bounds, Streams
from shared.bus.topology import NOTIFICATION_SUBJECTS, Stream
from shared.errors import UnavailableError
from shared.notifications import Notification, NotificationFilter, read_notification
from shared.resources.events import Event, Renderer

_log = structlog.get_logger()

_BATCH = 50
"""Events that are read and rendered at once, or passed to a reader; the largest are one megabyte."""

_SCAN = 2_000
"""Notifications that are read at once to find those that a filter selects."""

_POLL_SECONDS = 0.1
_ERROR_PAUSE = 1.0

_MAX_RECENT = 1_000
_MAX_RECENT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rendered:
    """An event as it is sent, with the notification that it was rendered from."""

    sequence: int
    notification: Notification
    body: bytes


class EventLog:
    """The stored events; its methods raise UnavailableError while NATS or PostgreSQL does not answer."""

    def __init__(self, bus: Bus, renderer: Renderer) -> None:
        self._bus = bus
        self._streams = Streams(bus)
        self._renderer = renderer

    async def bounds(self) -> Bounds:
        return await self._streams.bounds(Stream.NOTIFICATIONS)

    async def read(
        self, after: int, selected: NotificationFilter, limit: int
    ) -> tuple[list[tuple[Notification, Event]], int, bool]:
        """Read events after a sequence.

        Args:
            after: the sequence.
            selected: the events to return.
            limit: the maximum number of events.

        Returns:
            The events, the sequence up to which all were read, and whether there may be more.
        """
        count = limit if selected == NotificationFilter() else _SCAN
        answer = await self._bus.next_messages(
            Stream.NOTIFICATIONS, after + 1, count=count, subject=NOTIFICATION_SUBJECTS
        )
        found: dict[int, Notification] = {}
        position, has_more = after, len(answer.messages) == count or not answer.is_complete
        for message in answer.messages:
            position = message.sequence
            notification = read_notification(message.sequence, message.payload)
            if notification is not None and selected.selects(notification):
                found[message.sequence] = notification
                if len(found) == limit:
                    has_more = has_more or message is not answer.messages[-1]
                    break
        events = await self._renderer.render(found)
        return [(found[event.sequence], event) for event in events], position, has_more


class FeedEndedError(Exception):
    """The process is stopping."""


class Feed:
    """Follows the end of the log for all readers of this process.

    Args:
        log: the log.
        is_stopping: whether the process is stopping, and all readers have to leave.
    """

    def __init__(self, log: EventLog, is_stopping: Callable[[], bool]) -> None:
        self._log = log
        self._is_stopping = is_stopping
        self._readers = 0
        self._has_readers = asyncio.Event()
        self._recent: deque[Rendered] = deque()
        self._recent_bytes = 0
        self._complete_after = 0
        self._end: int | None = None
        self._advanced = asyncio.Event()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Follow the log during the block."""
        self._readers += 1
        self._has_readers.set()
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._has_readers.clear()

    async def next(self, after: int, selected: NotificationFilter) -> tuple[Sequence[Rendered], int]:
        """Return the events after a sequence, and the sequence up to which all were read.

        If there are none yet, wait for some, which need not be among the selected ones.

        Raises:
            UnavailableError: the reader is behind, and NATS or PostgreSQL does not answer.
            FeedEndedError: the process is stopping.
        """
        while not self._is_stopping() and (self._end is None or after >= self._end):
            self._advanced.clear()
            await self._advanced.wait()
        if self._is_stopping() or self._end is None:
            raise FeedEndedError
        if after >= self._complete_after:
            return self._recent_after(after, selected, self._end)
        found, position, _ = await self._log.read(after, selected, _BATCH)
        if position == after:  # the replica that responded does not have the events yet
            await asyncio.sleep(_POLL_SECONDS)
        return [*map(_rendered, found)], position

    def _recent_after(
        self, after: int, selected: NotificationFilter, end: int
    ) -> tuple[Sequence[Rendered], int]:
        new = [*takewhile(lambda each: each.sequence > after, reversed(self._recent))][::-1]
        found = [each for each in new if selected.selects(each.notification)]
        return (found[:_BATCH], found[_BATCH - 1].sequence) if len(found) > _BATCH else (found, end)

    async def run(self) -> None:
        """Follow the log while there are readers."""
        while True:
            supervision.beat()
            await supervision.patiently(self._has_readers.wait())
            try:
                await supervision.patiently(self._follow())
            except UnavailableError as exc:
                _log.warning("events_unavailable", error=str(exc))
                await self._pause(_ERROR_PAUSE)
            except Exception:  # noqa: BLE001 - an error must not end a process that accepts messages
                _log.exception("feed_failed")
                await self._pause(_ERROR_PAUSE)

    async def _follow(self) -> None:
        """Start at the end of the log, or continue after an error."""
        if self._end is None:
            self._recent.clear()
            self._recent_bytes = 0
            self._complete_after = self._end = (await self._log.bounds()).last
            self._advanced.set()
        while self._has_readers.is_set():
            found, position, has_more = await self._log.read(self._end, NotificationFilter(), _BATCH)
            for each in found:
                self._append(_rendered(each))
            if position > self._end:
                self._end = position
                self._advanced.set()
            if not has_more:
                await self._pause(_POLL_SECONDS)
        self._end = None

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._is_stopping():
            self._advanced.set()  # so that readers notice

    def _append(self, event: Rendered) -> None:
        self._recent.append(event)
        self._recent_bytes += len(event.body)
        while len(self._recent) > _MAX_RECENT or self._recent_bytes > _MAX_RECENT_BYTES:
            dropped = self._recent.popleft()
            self._recent_bytes -= len(dropped.body)
            self._complete_after = dropped.sequence


def _rendered(found: tuple[Notification, Event]) -> Rendered:
    notification, event = found
    return Rendered(event.sequence, notification, event.encode())
