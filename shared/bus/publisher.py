"""Publishes to JetStream. Once `publish` has returned, the message is stored.

Messages that many callers publish at the same time are sent as one atomic batch (ADR-50 of NATS). A server
that syncs to disk before it acknowledges then does so once for all of them. Messages of EVENTS are even
joined as lines of one message: they never have to be acknowledged, found or replaced individually.
"""

import asyncio
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

import nats.errors
from nats.aio.client import Client

from shared.bus import lines
from shared.bus.client import REQUEST_TIMEOUT, Bus
from shared.bus.topology import Stream
from shared.errors import BusUnavailableError
from shared.ids import EventId
from shared.observability import tracing

_BATCH = 200
"""Messages; the server accepts at most 1,000 in a batch."""

_SMALLEST_BATCH = 16
"""Messages; the server creates files for each batch, which is not worthwhile for fewer."""

_LINGER = 0.04
_WORTHWHILE_BATCH = 64
"""Under load, a queue waits until it has this many messages, for up to `_LINGER` seconds after the previous
batch. A batch costs the server about 1.6 ms of CPU time, and each of its messages 15 µs."""

_BUSY_RATE = 300
"""Messages per second. At lower rates, a batch would remain too small to be worth waiting for."""

_RATE_SECONDS = 0.2
"""The time over which the rate is averaged."""

_ROOM_FOR_HEADERS = 4 * 1024
"""Bytes."""

_TOO_LARGE = 10_054
"""The server's own code for a message that is too large for a stream."""

_OUTAGE_SECONDS = 30.0
"""How long the outcome of the last publish counts. After that, the stream is tried again."""

_FIRST_SERVER_ERROR = 500

_EVENT = {"Content-Type": "application/cloudevents+json"}
"""Structured mode of the NATS protocol binding of CloudEvents."""

_LINES = {"Content-Type": "application/jsonl"}

_SCHEDULING_STREAMS = {Stream.DELAYED, Stream.WEBHOOK_RETRIES}
"""They do not accept atomic batches."""

_EVENT_STREAMS = {*Stream} - {Stream.ADVISORIES, Stream.NOTIFICATIONS, Stream.WEBHOOK_RETRIES}

_BATCHES_IN_FLIGHT = 2
"""Per stream: one is stored while the next is sent. The server accepts at most 50."""


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """A message to publish.

    Attributes:
        id: lets the server recognise repetitions (`Nats-Msg-Id`); None for a message that is stored in any
            case.
    """

    subject: str
    id: EventId | None
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str]:
        return {**self.headers, "Nats-Msg-Id": str(self.id)} if self.id else dict(self.headers)


class PublishRejectedError(BusUnavailableError):
    """The server responded that it will not store the message.

    Attributes:
        code: the server's own error code.
        status: 400 or above if the message is at fault, 500 or above if the stream cannot store any.
    """

    def __init__(self, code: int, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status


class Publisher:
    """Publishes messages individually for its callers, and in batches internally."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queues: dict[str, _BatchQueue] = {}

    async def publish(self, stream: str, outgoing: Outgoing) -> int:
        """Publish a message to `stream`, to which its subject belongs, and return its sequence there.

        Raises:
            PublishRejectedError: the server rejected the message, for example because the stream is full.
            BusUnavailableError: the server did not respond within 4 seconds, or there is no connection. It
                may still have stored the message; publishing an event again does no harm.
        """
        queue = self._queue(stream)
        if not (isinstance(stream, Stream) and tracing.is_on()):
            return await queue.publish(outgoing)
        with tracing.publishing(stream, outgoing.id):
            traced = replace(outgoing, headers={**outgoing.headers, **tracing.headers()})
            return await queue.publish(traced)

    async def publish_batch(self, stream: str, batch: Sequence[Outgoing]) -> None:
        """Publish up to 200 messages to `stream` in this order.

        Raises:
            PublishRejectedError: the server rejected a message. Others may have been stored.
            BusUnavailableError: as for `publish`.
        """
        for result in await self._queue(stream).store(batch):
            if isinstance(result, BaseException):
                raise result

    def _queue(self, stream: str) -> "_BatchQueue":
        queue = self._queues.get(stream)
        if queue is None:
            queue = self._queues[stream] = _BatchQueue(self._bus, stream)
        return queue

    @property
    def outage(self) -> str | None:
        """The reason why a stream stored nothing when this process last published to it, or None."""
        outages = (f"{stream}: {queue.outage}" for stream, queue in self._queues.items() if queue.outage)
        return next(outages, None)

    async def aclose(self) -> None:
        for queue in self._queues.values():
            await queue.aclose()


@asynccontextmanager
async def publishing(bus: Bus) -> AsyncIterator[Publisher]:
    publisher = Publisher(bus)
    try:
        yield publisher
    finally:
        await publisher.aclose()


class _BatchQueue:
    """The messages to be published to one stream. While batches are in flight, the next one fills."""

    def __init__(self, bus: Bus, stream: str) -> None:
        batched = stream not in _SCHEDULING_STREAMS
        self._bus = bus
        self._joins_lines = stream == Stream.EVENTS
        self._headers = _EVENT if stream in _EVENT_STREAMS else {}
        self._batch_size = _BATCH if batched else 1
        self._max_senders = _BATCHES_IN_FLIGHT if batched else _BATCH
        self._waiting: deque[tuple[Outgoing, asyncio.Future[int]]] = deque()
        self._sending = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._rate = _Rate()
        self._last_batch_at = 0.0
        self._is_worthwhile = asyncio.Event()
        self._outage = ""
        self._outage_at = 0.0

    @property
    def outage(self) -> str | None:
        """The error of the last messages, if all of them failed recently and on the current connection."""
        age = asyncio.get_running_loop().time() - self._outage_at
        is_current = age < min(_OUTAGE_SECONDS, self._bus.connected_for.total_seconds())
        return self._outage if self._outage and is_current else None

    async def publish(self, outgoing: Outgoing) -> int:
        _check_size(outgoing, self._bus.client)  # fails immediately if there is no connection
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[int] = loop.create_future()
        self._waiting.append((outgoing, stored))
        self._rate.count(loop.time())
        if len(self._waiting) >= _WORTHWHILE_BATCH:
            self._is_worthwhile.set()
        if self._sending < self._max_senders:
            self._sending += 1
            sender = asyncio.create_task(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        timeout = loop.call_later(REQUEST_TIMEOUT, _give_up, stored)
        try:
            return await stored
        finally:
            timeout.cancel()

    async def _send_waiting(self) -> None:
        try:
            # Callers that publish in the same iteration of the event loop share the batch.
            await asyncio.sleep(0)
            while self._waiting:
                await self._linger()
                size = min(self._batch_size, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                # While NATS stores nothing, publishers give up, and their messages are no longer wanted.
                await self._send([each for each in batch if not each[1].done()])
        finally:
            # Immediately: a message must not be left to a task that has looked for the last time.
            self._sending -= 1

    async def _linger(self) -> None:
        """Wait, under load, until a batch is worthwhile."""
        now = asyncio.get_running_loop().time
        if self._batch_size > 1 and self._rate.per_second(now()) >= _BUSY_RATE:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._last_batch_at + _LINGER - now()):
                    while len(self._waiting) < _WORTHWHILE_BATCH:
                        self._is_worthwhile.clear()
                        await self._is_worthwhile.wait()
        self._last_batch_at = now()

    async def _send(self, batch: Sequence[tuple[Outgoing, asyncio.Future[int]]]) -> None:
        if not batch:
            return
        results = await self.store([outgoing for outgoing, _ in batch])
        self._note_outage(results)
        for (_, stored), result in zip(batch, results, strict=True):
            if stored.done():
                continue  # its publisher has given up
            if isinstance(result, BaseException):
                stored.set_exception(result)
            else:
                stored.set_result(result)

    def _note_outage(self, results: Sequence[int | BaseException]) -> None:
        outages = [
            result for result in results if isinstance(result, BusUnavailableError) and _is_outage(result)
        ]
        self._outage = str(outages[0]) if len(outages) == len(results) else ""
        self._outage_at = asyncio.get_running_loop().time()

    async def store(self, batch: Sequence[Outgoing]) -> list[int | BaseException]:
        """Store messages immediately, and return the sequence or the error of each."""
        if self._joins_lines:
            return await self._store_as_lines(batch)
        if len(batch) >= _SMALLEST_BATCH:
            try:
                last = await self._bus.unless_lost(self._store_batch(batch))
            except PublishRejectedError:
                pass  # usually because one of them is already stored: publish each one separately
            except BusUnavailableError as exc:
                return [exc] * len(batch)
            else:
                return [last - len(batch) + number for number in range(1, len(batch) + 1)]
        return await self._store_each(batch)

    async def _store_as_lines(self, batch: Sequence[Outgoing]) -> list[int | BaseException]:
        groups = _groups(batch)
        results = await self._store_each([_as_one(group) for group in groups])
        result_of = {
            outgoing: result for group, result in zip(groups, results, strict=True) for outgoing in group
        }
        return [result_of[outgoing] for outgoing in batch]

    async def _store_each(self, batch: Sequence[Outgoing]) -> list[int | BaseException]:
        return await asyncio.gather(*map(self._store_one, batch), return_exceptions=True)

    async def _store_one(self, outgoing: Outgoing) -> int:
        return await self._bus.unless_lost(self._request(outgoing, self._headers_of(outgoing)))

    def _headers_of(self, outgoing: Outgoing) -> dict[str, str]:
        return {**self._headers, **outgoing.all_headers()}

    async def _store_batch(self, batch: Sequence[Outgoing]) -> int:
        """Store all messages or none; return the sequence of the last one."""
        batch_id = uuid4().hex
        last = len(batch)
        for number, outgoing in enumerate(batch, start=1):
            headers = self._headers_of(outgoing)
            headers["Nats-Batch-Id"] = batch_id
            headers["Nats-Batch-Sequence"] = str(number)
            if number < last:
                await self._publish(outgoing, headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
        return await self._request(outgoing, headers)

    async def _publish(self, outgoing: Outgoing, headers: dict[str, str]) -> None:
        with _translated():
            await self._bus.client.publish(outgoing.subject, outgoing.payload, headers=headers)

    async def _request(self, outgoing: Outgoing, headers: dict[str, str]) -> int:
        with _translated():
            reply = await self._bus.client.request(
                outgoing.subject, outgoing.payload, timeout=REQUEST_TIMEOUT, headers=headers
            )
        answer = json.loads(reply.data)
        if error := answer.get("error"):
            raise PublishRejectedError(
                error.get("err_code", 0), error.get("description", "refused"), error.get("code", 400)
            )
        return int(answer["seq"])

    async def aclose(self) -> None:
        for sender in list(self._senders):
            sender.cancel()
        for sender in list(self._senders):
            with suppress(asyncio.CancelledError):
                await sender


def _groups(batch: Iterable[Outgoing]) -> list[list[Outgoing]]:
    """Group the messages that can be stored as one: those with the same subject and no headers."""
    groups: list[list[Outgoing]] = []
    open_groups: dict[str, list[Outgoing]] = {}
    for outgoing in batch:
        group = [] if outgoing.headers else open_groups.get(outgoing.subject, [])
        if not group or sum(len(each.payload) for each in group) > lines.MAX_BYTES:
            group = []
            groups.append(group)
            if not outgoing.headers:
                open_groups[outgoing.subject] = group
        group.append(outgoing)
    return groups


def _as_one(group: Sequence[Outgoing]) -> Outgoing:
    if len(group) == 1:
        return group[0]
    # The same lines are never published together again, so an id could not recognise a repetition.
    payload = lines.join(outgoing.payload for outgoing in group)
    return Outgoing(group[0].subject, None, payload, _LINES)


class _Rate:
    """The number of messages per second, averaged so that recent ones count more."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._at = 0.0

    def count(self, now: float) -> None:
        self._sum = self._decayed(now) + 1
        self._at = now

    def per_second(self, now: float) -> float:
        return self._decayed(now) / _RATE_SECONDS

    def _decayed(self, now: float) -> float:
        return self._sum * math.exp((self._at - now) / _RATE_SECONDS)


def _is_outage(error: BusUnavailableError) -> bool:
    """Return whether an error concerns NATS, rather than the message that it has rejected."""
    return not isinstance(error, PublishRejectedError) or error.status >= _FIRST_SERVER_ERROR


def _give_up(stored: asyncio.Future[int]) -> None:
    if not stored.done():
        stored.set_exception(BusUnavailableError("NATS did not acknowledge in time"))


def _check_size(outgoing: Outgoing, client: Client) -> None:
    """Reject a message that is too large: the server would close the connection, on which others publish."""
    size = len(outgoing.payload) + _ROOM_FOR_HEADERS
    if size > client.max_payload:
        raise PublishRejectedError(_TOO_LARGE, f"{size} bytes are more than NATS accepts in a message")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as exc:
        raise BusUnavailableError(str(exc) or type(exc).__name__) from exc
