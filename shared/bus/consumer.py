"""The one loop that fetches, hands to a handler, and settles what the handler decided.

The loop knows no business and the handler knows no acknowledgements: a handler gets deliveries and returns
an outcome for each. While it raises NotNowError it is called again, with the same deliveries and growing
pauses: handing them back instead would count as deliveries, of which a message has a limited number.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import uniform

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from shared.bus.client import Bus
from shared.bus.topology import ACK_WAIT, Consumer
from shared.dead_letters import Origin
from shared.errors import BusUnavailableError, NotNowError

_log = structlog.get_logger()

_FETCH_TIMEOUT = 2.0
_ERROR_PAUSE = 1.0
_CLOSED_PAUSE = (0.5, 1.5)
"""Between looks at `may_read`; spread, so that what one loop finds out the others know."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_HEARTBEAT = ACK_WAIT.total_seconds() / 3
_DISTURBANCES = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError, BusUnavailableError)


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message as it came from a stream, where it is since `stored_at`."""

    payload: bytes
    origin: Origin
    stored_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """The message is dealt with; it will not come again."""


@dataclass(frozen=True, slots=True)
class HandBack:
    """The message is to come again, here or elsewhere, after `delay`."""

    delay: timedelta = timedelta(0)


Outcome = Done | HandBack
Handler = Callable[[Sequence[StreamMessage]], Awaitable[Sequence[Outcome]]]


class ConsumerLoop:
    """Reads one consumer until it is told to stop.

    Args:
        batch: how many messages the handler gets at once, at most. While it works on them the server is
            told that they are alive, however long it takes.
        longest_pause: seconds before a handler that raised NotNowError is called again, at most.
        may_read: tells whether the handler could do anything with messages; until it does they stay where
            they are, for readers in other processes.
    """

    def __init__(
        self,
        bus: Bus,
        consumer: Consumer,
        handler: Handler,
        *,
        batch: int = 1,
        longest_pause: float = _LONGEST_PAUSE,
        may_read: Callable[[], bool] = lambda: True,
    ) -> None:
        self._may_read = may_read
        self._longest_pause = longest_pause
        self._bus = bus
        self._consumer = consumer
        self._handler = handler
        self._batch = batch
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Fetch no more. `run` returns when what was fetched is dealt with, at most 2 seconds later."""
        self._stopping.set()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._read()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the stream is to be read on
                if self._bus.is_connected:  # otherwise the connection has complained already, once for all
                    _log.warning("consumer_disturbed", consumer=self._consumer.name, error=repr(exc))
            await self._pause(_ERROR_PAUSE)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _read(self) -> None:
        await self._until_connected()
        if self._stopping.is_set():
            return
        subscription = await self._bus.jetstream.pull_subscribe_bind(
            self._consumer.name, stream=self._consumer.stream
        )
        try:
            while not self._stopping.is_set():
                if not self._may_read():
                    await _hand_back_late(subscription)
                    await self._pause(uniform(*_CLOSED_PAUSE))
                elif messages := await self._fetch(subscription):
                    await self._handle(messages)
        finally:
            await self._leave(subscription)

    async def _until_connected(self) -> None:
        connected = asyncio.create_task(self._bus.until_connected())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({connected, stopping}, return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()
        stopping.cancel()

    async def _fetch(self, subscription: JetStreamContext.PullSubscription) -> list[Msg]:
        # What came in while the batch before was handled makes the next one: the busier, the larger.
        try:
            return await subscription.fetch(self._batch, timeout=_FETCH_TIMEOUT)
        except TimeoutError:
            return []

    async def _handle(self, messages: list[Msg]) -> None:
        deliveries = [_delivery(message, self._consumer) for message in messages]
        try:
            async with _heartbeat(messages):
                outcomes = await self._handle_when_possible(deliveries)
        except asyncio.CancelledError:
            # Told to stop, and not done in time: others may have the messages, and at once.
            with suppress(*_DISTURBANCES):
                await _settle_all(messages, [HandBack()] * len(messages))
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the messages must come again
            _log.exception("handler_failed", consumer=self._consumer.name)
            outcomes = [HandBack(timedelta(seconds=_ERROR_PAUSE))] * len(messages)
        await _settle_all(messages, outcomes)

    async def _handle_when_possible(self, deliveries: Sequence[StreamMessage]) -> Sequence[Outcome]:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._handler(deliveries)
            except NotNowError as exc:
                if self._stopping.is_set():
                    return [HandBack()] * len(deliveries)
                _log.warning("not_now", consumer=self._consumer.name, error=str(exc), pause=pause)
            await self._pause(pause)
            pause = min(2 * pause, self._longest_pause)

    async def _leave(self, subscription: JetStreamContext.PullSubscription) -> None:
        with suppress(*_DISTURBANCES):
            await _hand_back_late(subscription)
            await subscription.unsubscribe()


async def _hand_back_late(subscription: JetStreamContext.PullSubscription) -> None:
    """Hand back at once what arrived after the last fetch had ended."""
    with suppress(TimeoutError):  # it was only word of that end
        while subscription.pending_msgs:
            for message in await subscription.fetch(1, timeout=0.05):
                await _settle(message, HandBack())


def _delivery(message: Msg, consumer: Consumer) -> StreamMessage:
    sequence = message.metadata.sequence.stream
    origin = Origin(
        stream=consumer.stream, sequence=sequence, subject=message.subject, consumer=consumer.name
    )
    return StreamMessage(message.data, origin, message.metadata.timestamp, message.headers or {})


async def _settle_all(messages: Sequence[Msg], outcomes: Sequence[Outcome]) -> None:
    for message, outcome in zip(messages, outcomes, strict=True):
        await _settle(message, outcome)


async def _settle(message: Msg, outcome: Outcome) -> None:
    match outcome:
        case Done():
            await message.ack()
        case HandBack(delay):
            await message.nak(delay.total_seconds() or None)


@asynccontextmanager
async def _heartbeat(messages: list[Msg]) -> AsyncIterator[None]:
    """Tell the server from time to time that the messages are being worked on."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT)
            with suppress(*_DISTURBANCES):
                for message in messages:
                    await message.in_progress()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
