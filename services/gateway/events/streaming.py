"""Streams of server-sent events, and the limit on their number."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.gateway.events.feed import EventLog, Feed, FeedEndedError, Rendered
from services.gateway.http.errors import ProblemError
from shared.errors import UnavailableError
from shared.notifications import NotificationFilter
from shared.observability.metrics import EVENT_STREAMS, EVENTS_STREAMED

MAX_STREAMS_PER_CALLER = 20
_MAX_STREAMS = 1_000

_HEARTBEAT = 15.0
"""Seconds after which a comment is sent if there was no event, so that proxies keep the connection open."""

_COMMENT = b": no events\n"
"""No empty line follows, since some clients take it for an event without data."""

_ERROR_PAUSE = 1.0


class StreamLimit:
    """Limits the open streams of each caller, and of all of them, in this process."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def opened(self, caller: str) -> Iterator[None]:
        """Count a stream during the block.

        Raises:
            ProblemError: 429, there are too many.
        """
        if self._open[caller] >= MAX_STREAMS_PER_CALLER or self._open.total() >= _MAX_STREAMS:
            raise ProblemError(
                429,
                "too_many_streams",
                f"A caller can have {MAX_STREAMS_PER_CALLER} open streams at a gateway; close some of them",
                headers={"Retry-After": "15"},
            )
        self._open[caller] += 1
        EVENT_STREAMS.inc()
        try:
            yield
        finally:
            self._open[caller] -= 1
            EVENT_STREAMS.dec()


class EventStream(StreamingResponse):
    """A response with the events after a sequence, which ends when the client or the process does."""

    media_type = "text/event-stream"

    def __init__(
        self,
        feed: Feed,
        after: int,
        selected: NotificationFilter,
        opened: AbstractContextManager[None],
        *,
        heartbeat: float = _HEARTBEAT,
    ) -> None:
        headers = {
            # With its position, a stream that is cut before its first event can be continued without a gap.
            "Last-Event-ID": str(after),
            # Proxies must neither keep the response nor wait for more of it.
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        super().__init__(_stream(feed, after, selected, heartbeat), headers=headers)
        self._feed = feed
        self._opened = ExitStack()
        self._opened.enter_context(opened)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._opened, self._feed.joined():
            await super().__call__(scope, receive, send)


async def _stream(
    feed: Feed, after: int, selected: NotificationFilter, heartbeat: float
) -> AsyncIterator[bytes]:
    yield _COMMENT  # so that the client knows that it is connected
    while True:
        reading = asyncio.ensure_future(_next(feed, after, selected))
        try:
            while not (await asyncio.wait({reading}, timeout=heartbeat))[0]:
                yield _COMMENT
            events, after = reading.result()
        except FeedEndedError:
            return
        finally:
            reading.cancel()
        for event in events:
            yield _encode(event)
            EVENTS_STREAMED.inc()


async def _next(feed: Feed, after: int, selected: NotificationFilter) -> tuple[list[Rendered], int]:
    """Return the next selected events as soon as there are some."""
    while True:
        try:
            events, after = await feed.next(after, selected)
        except UnavailableError:
            await asyncio.sleep(_ERROR_PAUSE)
        else:
            if events:
                return list(events), after


def _encode(event: Rendered) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        event.sequence,
        event.notification.type.encode(),
        event.body,
    )


@dataclass(frozen=True, slots=True)
class EventSource:
    """The dependencies for reading events."""

    log: EventLog
    feed: Feed
    limit: StreamLimit = field(default_factory=StreamLimit)
