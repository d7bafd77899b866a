"""Runs the sender's consumers: lanes for new messages, which keep order, and loops for retries."""

import asyncio
from collections.abc import Sequence
from functools import partial

from services.sender.delivery import Deliverer
from shared.bus.client import Bus
from shared.bus.consumer import ConsumerLoop, Done, Outcome, StreamMessage
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.lag import watch_lag
from shared.bus.streams import Streams
from shared.bus.topology import Consumer, sender_delayed, sender_lanes
from shared.channels import Channel
from shared.errors import BadMessageError
from shared.events import decode
from shared.message import DeliveryRequest
from shared.observability import tracing

_DELAYED_LOOPS = 16
"""Per channel: how many retries and scheduled messages are being sent at the same time."""

_DRAIN_SECONDS = 8
_ATTEMPT_SECONDS = 5
"""The rest of the drain is for recording the results of the attempts."""


class Worker:
    """Passes the messages of the consumers to `deliverer` until it is stopped."""

    def __init__(self, bus: Bus, deliverer: Deliverer, dead_letters: DeadLetterPublisher) -> None:
        self._deliverer = deliverer
        self._dead_letters = dead_letters
        self._streams = Streams(bus)
        readers = [(channel, consumer) for channel in Channel for consumer in _readers(channel)]
        self._consumers = list(dict.fromkeys(consumer for _, consumer in readers))
        # A process that reaches no provider leaves the messages in the stream: other processes may reach one.
        self._loops = [
            ConsumerLoop(bus, consumer, self._handle, may_read=partial(deliverer.can_send, channel))
            for channel, consumer in readers
        ]
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._running = [asyncio.create_task(loop.run()) for loop in self._loops]
        self._watch = asyncio.create_task(watch_lag(self._streams, self._consumers))

    async def unready_reason(self) -> str | None:
        """Return why messages cannot be sent, or None if they can."""
        return await self._streams.unready_reason(self._consumers[0])

    async def stop(self) -> None:
        """Finish the deliveries in progress within 8 seconds, and hand back the rest."""
        self._watch.cancel()
        for loop in self._loops:
            loop.stop()
        self._deliverer.finish_within(_ATTEMPT_SECONDS)
        _, late = await asyncio.wait(self._running, timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _handle(self, messages: Sequence[StreamMessage]) -> Sequence[Outcome]:
        return [await self._handle_one(message) for message in messages]

    async def _handle_one(self, message: StreamMessage) -> Outcome:
        with tracing.processing(message.origin.stream, message.headers):
            try:
                request = _decode_request(message.payload)
                _annotate_trace(request)
                return await self._deliverer.deliver(request, message.origin)
            except BadMessageError as exc:
                await self._dead_letters.publish(message.payload, exc, message.origin, at=message.stored_at)
                return Done()


def _readers(channel: Channel) -> Sequence[Consumer]:
    return [*sender_lanes(channel), *[sender_delayed(channel)] * _DELAYED_LOOPS]


def _decode_request(payload: bytes) -> DeliveryRequest:
    event = decode(payload)
    if not isinstance(event.data, DeliveryRequest):
        raise BadMessageError("unexpected_type", f"{event.type} is not a request to send a message")
    return event.data


def _annotate_trace(request: DeliveryRequest) -> None:
    message = request.message
    tracing.annotate(
        message_id=message.id,
        conversation_key=message.conversation_key,
        channel=message.channel,
        generation=request.generation,
        attempt=request.attempt,
    )
