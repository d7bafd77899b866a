"""The loop that fetches messages from a stream, passes them to a handler, and acknowledges them.

The handler receives a batch of messages and returns an outcome for each. While it raises UnavailableError,
the loop calls it again with the same messages after increasing pauses. Returning the messages to the server
instead would count as deliveries, whose number is limited.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg

from shared import supervision
from shared.bus.client import Bus
from shared.bus.pull import Pull
from shared.bus.topology import ACK_WAIT, Consumer
from shared.dead_letters import Origin
from shared.errors import BusUnavailableError, UnavailableError

_log = structlog.get_logger()

_IDLE_SECONDS = 0.03
"""A loop that waited for a batch for longer than this has little to do, and does not linger."""

_ERROR_PAUSE = 1.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_HEARTBEAT = ACK_WAIT.total_seconds() / 3
_CONNECTION_ERRORS = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError, BusUnavailableError)


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message from a stream, which stored it at `stored_at`.

    Attributes:
        deliveries: how often the consumer has delivered it, including this time.
    """

    payload: bytes
    origin: Origin
    stored_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """The message is processed and is not delivered again."""


@dataclass(frozen=True, slots=True)
class HandBack:
    """The message is delivered again after `delay`, to this process or another one."""

    delay: timedelta = timedelta(0)


Outcome = Done | HandBack
Handler = Callable[[Sequence[StreamMessage]], Awaitable[Sequence[Outcome]]]


async def _nothing() -> None:
    """Do nothing."""


class ConsumerLoop:
    """Reads a consumer until it is stopped.

    Args:
        bus: the connection.
        consumer: the consumer.
        handler: processes batches of messages.
        batch: the maximum number of messages in a batch. While the handler works on a batch, the server
            receives heartbeats, so that the messages are not delivered to another process.
        linger: seconds between a batch that was not full and the next fetch, if the loop waited for less than
            0.03 seconds until the batch arrived. Under load, this makes batches fewer and larger; when there
            are few messages, each is still fetched immediately.
        longest_pause: the maximum number of seconds before a handler that raised UnavailableError is called
            again.
        before_fetch: is called before each fetch.
    """

    def __init__(
        self,
        bus: Bus,
        consumer: Consumer,
        handler: Handler,
        *,
        batch: int = 1,
        linger: float = 0,
        longest_pause: float = _LONGEST_PAUSE,
        before_fetch: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._before_fetch = before_fetch
        self._linger = linger
        self._longest_pause = longest_pause
        self._bus = bus
        self._consumer = consumer
        self._handler = handler
        self._batch = batch
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop reading; `run` returns within a second, or when the messages that were read are processed."""
        self._stopping.set()

    @property
    def name(self) -> str:
        return f"reader of {self._consumer.name}"

    async def run(self) -> None:
        while not self._stopping.is_set():
            supervision.beat()
            try:
                await self._read()
            except Exception as exc:  # noqa: BLE001 - no error may stop the loop
                if self._bus.is_connected:  # otherwise the connection has already logged the outage
                    _log.warning("consumer_failed", consumer=self._consumer.name, error=repr(exc))
            await self._pause(_ERROR_PAUSE)

    async def _pause(self, seconds: float) -> None:
        if seconds:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _read(self) -> None:
        await self._until_connected()
        if self._stopping.is_set():
            return
        pull = Pull(self._bus.client, self._consumer)
        time = asyncio.get_running_loop().time
        await pull.open()
        try:
            while not self._stopping.is_set():
                supervision.beat()
                await supervision.patiently(self._before_fetch())
                # A batch contains the messages that arrived during the previous one: it grows with the load.
                asked_at = time()
                if messages := await pull.next_batch(self._batch):
                    is_idle = time() - asked_at > _IDLE_SECONDS
                    await self._handle(messages)
                    if len(messages) < self._batch and not is_idle:
                        await self._pause(self._linger)
        finally:
            with suppress(*_CONNECTION_ERRORS):
                await pull.close()

    async def _until_connected(self) -> None:
        connected = asyncio.create_task(self._bus.until_connected())
        stopping = asyncio.create_task(self._stopping.wait())
        waiting = asyncio.wait({connected, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await supervision.patiently(waiting)
        connected.cancel()
        stopping.cancel()

    async def _handle(self, messages: list[Msg]) -> None:
        batch = [stream_message(message, self._consumer) for message in messages]
        try:
            async with _heartbeat(messages):
                # The handler's own requests are bounded, by up to half a minute for one to the database.
                outcomes = await supervision.patiently(self._handle_when_possible(batch))
        except asyncio.CancelledError:
            # The handler did not finish in time before a stop: another process can have the messages at once.
            with suppress(*_CONNECTION_ERRORS):
                await _acknowledge_all(messages, [HandBack()] * len(messages))
            raise
        except Exception:  # noqa: BLE001 - after any error the messages are delivered again
            _log.exception("handler_failed", consumer=self._consumer.name)
            outcomes = [HandBack(timedelta(seconds=_ERROR_PAUSE))] * len(messages)
        await _acknowledge_all(messages, outcomes)

    async def _handle_when_possible(self, batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._handler(batch)
            except UnavailableError as exc:
                if self._stopping.is_set():
                    return [HandBack()] * len(batch)
                _log.warning("handler_unavailable", consumer=self._consumer.name, error=str(exc), pause=pause)
            await self._pause(pause)
            pause = min(2 * pause, self._longest_pause)


def stream_message(message: Msg, consumer: Consumer) -> StreamMessage:
    sequence = message.metadata.sequence.stream
    origin = Origin(
        stream=consumer.stream, sequence=sequence, subject=message.subject, consumer=consumer.name
    )
    return StreamMessage(
        message.data,
        origin,
        message.metadata.timestamp,
        message.headers or {},
        message.metadata.num_delivered or 1,
    )


async def _acknowledge_all(messages: Sequence[Msg], outcomes: Sequence[Outcome]) -> None:
    for message, outcome in zip(messages, outcomes, strict=True):
        await _acknowledge(message, outcome)


async def _acknowledge(message: Msg, outcome: Outcome) -> None:
    match outcome:
        case Done():
            await message.ack()
        case HandBack(delay):
            await message.nak(delay.total_seconds() or None)


@asynccontextmanager
async def _heartbeat(messages: list[Msg]) -> AsyncIterator[None]:
    """Report to the server at intervals that the messages are being processed."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT)
            with suppress(*_CONNECTION_ERRORS):
                for message in messages:
                    await message.in_progress()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
