"""Publishing to JetStream: what `publish` returns from is stored.

What many callers publish at the same time goes out together, as an atomic batch (ADR-50 of NATS), so that a
server that syncs to disk before it acknowledges does so once for all of them.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

import nats.errors
from nats.aio.client import Client

from shared.bus.client import REQUEST_TIMEOUT, Bus
from shared.bus.topology import Stream
from shared.errors import BusUnavailableError
from shared.ids import EventId
from shared.observability import tracing

_BATCH = 200
"""Messages; the server takes at most 1,000 in a batch."""

_SMALLEST_BATCH = 16
"""Messages; the server makes files for each batch, which do not pay for fewer."""

_ROOM_FOR_HEADERS = 4 * 1024
"""Bytes."""

_TOO_LARGE = 10_054
"""The server's own code for a message that exceeds what a stream takes."""

_BATCHES_IN_FLIGHT = 2
"""Per stream: one is stored while the next is sent. The server takes at most 50."""


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """A message on its way.

    Attributes:
        id: makes repetitions recognisable to the server (`Nats-Msg-Id`); None for what it has to take again.
    """

    subject: str
    id: EventId | None
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str]:
        return {**self.headers, "Nats-Msg-Id": str(self.id)} if self.id else dict(self.headers)


class PublishRejectedError(BusUnavailableError):
    """The server answered that it does not store the message.

    Attributes:
        code: the server's own error code.
    """

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Publisher:
    """Publishes one by one for its callers, in batches underneath."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._lines: dict[str, _Line] = {}

    async def publish(self, stream: str, outgoing: Outgoing) -> int:
        """Return once `stream`, to which the subject belongs, has stored the message: its sequence there.

        Raises:
            PublishRejectedError: it answered that it does not, for lack of room for example.
            BusUnavailableError: it did not answer within 4 seconds, or there is no connection. It may have
                stored the message all the same; publishing an event again does no harm.
        """
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = _Line(self._bus, batched=stream is not Stream.DELAYED)
        if not (isinstance(stream, Stream) and tracing.is_on()):
            return await line.publish(outgoing)
        with tracing.publishing(stream, outgoing.id):
            traced = replace(outgoing, headers={**outgoing.headers, **tracing.headers()})
            return await line.publish(traced)

    async def aclose(self) -> None:
        for line in self._lines.values():
            await line.aclose()


@asynccontextmanager
async def publishing(bus: Bus) -> AsyncIterator[Publisher]:
    publisher = Publisher(bus)
    try:
        yield publisher
    finally:
        await publisher.aclose()


class _Line:
    """What waits for one stream. While batches are under way, the next one fills."""

    def __init__(self, bus: Bus, *, batched: bool) -> None:
        self._bus = bus
        self._batch_size = _BATCH if batched else 1
        self._max_senders = _BATCHES_IN_FLIGHT if batched else _BATCH
        self._waiting: deque[tuple[Outgoing, asyncio.Future[int]]] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def publish(self, outgoing: Outgoing) -> int:
        _check_size(outgoing, self._bus.client)  # which fails at once while there is no connection
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((outgoing, stored))
        if len(self._senders) < self._max_senders:
            sender = asyncio.create_task(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        try:
            return await asyncio.wait_for(stored, REQUEST_TIMEOUT)
        except TimeoutError as exc:
            raise BusUnavailableError("NATS did not acknowledge in time") from exc

    async def _send_waiting(self) -> None:
        await asyncio.sleep(0)  # whoever publishes in the same turn of the loop shares the batch
        while self._waiting:
            size = min(self._batch_size, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(size)]
            results = await self._store([outgoing for outgoing, _ in batch])
            for (_, stored), result in zip(batch, results, strict=True):
                if stored.done():
                    continue  # its publisher has given up
                if isinstance(result, BaseException):
                    stored.set_exception(result)
                else:
                    stored.set_result(result)

    async def _store(self, batch: list[Outgoing]) -> list[int | BaseException]:
        if len(batch) >= _SMALLEST_BATCH:
            try:
                last = await self._until_lost(self._store_batch(batch))
            except PublishRejectedError:
                pass  # all for one, mostly one that is there already: each is told by itself
            except BusUnavailableError as exc:
                return [exc] * len(batch)
            else:
                return [last - len(batch) + number for number in range(1, len(batch) + 1)]
        return await asyncio.gather(
            *(self._until_lost(self._store_one(outgoing)) for outgoing in batch), return_exceptions=True
        )

    async def _until_lost(self, storing: Coroutine[None, None, int]) -> int:
        """Await an answer, but not one that can no longer come because the connection broke."""
        answer = asyncio.ensure_future(storing)
        lost = asyncio.ensure_future(self._bus.until_lost())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise BusUnavailableError("the connection to NATS broke before it acknowledged")
            return answer.result()
        finally:
            lost.cancel()
            answer.cancel()

    async def _store_one(self, outgoing: Outgoing) -> int:
        return await self._request(outgoing, outgoing.all_headers())

    async def _store_batch(self, batch: list[Outgoing]) -> int:
        """Store all or none; return the sequence of the last."""
        batch_id = uuid4().hex
        last = len(batch)
        for number, outgoing in enumerate(batch, start=1):
            headers = outgoing.all_headers()
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
            raise PublishRejectedError(error.get("err_code", 0), error.get("description", "refused"))
        return int(answer["seq"])

    async def aclose(self) -> None:
        for sender in list(self._senders):
            sender.cancel()
        for sender in list(self._senders):
            with suppress(asyncio.CancelledError):
                await sender


def _check_size(outgoing: Outgoing, client: Client) -> None:
    """Refuse what the server would: it cuts the connection, and with it all that others are publishing."""
    size = len(outgoing.payload) + _ROOM_FOR_HEADERS
    if size > client.max_payload:
        raise PublishRejectedError(_TOO_LARGE, f"{size} bytes are more than NATS takes in a message")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as exc:
        raise BusUnavailableError(str(exc) or type(exc).__name__) from exc
