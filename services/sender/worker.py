"""Runs the sender's consumers: lanes for what is new, which keep order, and loops for what is due again."""

import asyncio
from collections.abc import Sequence
from functools import partial

from services.sender.delivery import Deliverer
from shared.observability import tracing
from shared.bus.client import Bus
from shared.bus.consumer import ConsumerLoop, StreamMessage, Done, Outcome
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.lag import watch_lag
from shared.bus.streams import Streams
from shared.bus.topology import Consumer, sender_delayed, sender_lanes
from shared.channels import Channel
from shared.errors import BadMessageError
from shared.events import DeliveryDue, DeliveryRequest, MessageAccepted, decode

_DELAYED_LOOPS = 16
"""Per channel: how many messages that are due again are being sent at once."""

_DRAIN_SECONDS = 8
_ATTEMPT_SECONDS = 5
"""What is left of the drain is for writing down what came of the attempts."""


class Worker:
    """Hands what the consumers bring to `deliverer`, until it is stopped."""

    def __init__(self, bus: Bus, deliverer: Deliverer, dead_letters: DeadLetterPublisher) -> None:
        self._deliverer = deliverer
        self._dead_letters = dead_letters
        self._streams = Streams(bus)
        readers = [(channel, consumer) for channel in Channel for consumer in _readers(channel)]
        self._consumers = list(dict.fromkeys(consumer for _, consumer in readers))
        # A process that can reach no provider leaves the messages where they are: others may do better.
        self._loops = [
            ConsumerLoop(bus, consumer, self._handle, may_read=partial(deliverer.may_send, channel))
            for channel, consumer in readers
        ]
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._running = [asyncio.create_task(loop.run()) for loop in self._loops]
        self._watch = asyncio.create_task(watch_lag(self._streams, self._consumers))

    async def what_is_missing(self) -> str | None:
        """Tell what keeps us from sending, or None."""
        return await self._streams.what_is_missing(self._consumers[0])

    async def stop(self) -> None:
        """Finish what is under way, within 8 seconds, and hand back the rest."""
        self._watch.cancel()
        for loop in self._loops:
            loop.stop()
        self._deliverer.finish_within(_ATTEMPT_SECONDS)
        _, late = await asyncio.wait(self._running, timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _handle(self, deliveries: Sequence[StreamMessage]) -> Sequence[Outcome]:
        return [await self._handle_one(delivery) for delivery in deliveries]

    async def _handle_one(self, delivery: StreamMessage) -> Outcome:
        with tracing.processing(delivery.origin.stream, delivery.headers):
            try:
                request = _request(delivery.payload)
                _annotate(request)
                return await self._deliverer.deliver(request, delivery.origin)
            except BadMessageError as exc:
                await self._dead_letters.publish(delivery.payload, exc, delivery.origin, at=delivery.stored_at)
                return Done()


def _readers(channel: Channel) -> Sequence[Consumer]:
    return [*sender_lanes(channel), *[sender_delayed(channel)] * _DELAYED_LOOPS]


def _request(payload: bytes) -> DeliveryRequest:
    event = decode(payload)
    if not isinstance(event, MessageAccepted | DeliveryDue):
        raise BadMessageError("unexpected_type", f"{event.type} is nothing to send")
    return event.data


def _annotate(request: DeliveryRequest) -> None:
    message = request.message
    tracing.annotate(
        message_id=message.id,
        conversation_key=message.conversation_key,
        channel=message.channel,
        generation=request.generation,
        attempt=request.attempt,
    )
