"""Runs the sender's consumers: lanes for what is new, which keep order, and loops for what is due again."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from services.sender.delivery import Deliverer
from shared.bus.client import Bus
from shared.bus.consumer import ConsumerLoop, Delivery, Done, HandBack, Outcome
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, dead_letter_subject, sender_delayed, sender_lanes
from shared.channels import Channel
from shared.errors import BadMessageError, BusUnavailableError
from shared.events import DeadLettered, DeliveryDue, DeliveryRequest, MessageAccepted, decode, unreadable

_log = structlog.get_logger()

_DELAYED_LOOPS = 16
"""Per channel: how many messages that are due again are being sent at once."""

_DRAIN_SECONDS = 8
_BUS_PAUSE = timedelta(seconds=1)


class Worker:
    """Hands what the consumers bring to `deliverer`, until it is stopped."""

    def __init__(self, bus: Bus, deliverer: Deliverer, publisher: Publisher) -> None:
        self._deliverer = deliverer
        self._publisher = publisher
        consumers = [
            consumer
            for channel in Channel
            for consumer in (*sender_lanes(channel), *[sender_delayed(channel)] * _DELAYED_LOOPS)
        ]
        self._loops = [ConsumerLoop(bus, consumer, self._handle) for consumer in consumers]
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._running = [asyncio.create_task(loop.run()) for loop in self._loops]

    async def stop(self) -> None:
        """Finish what is under way, within 8 seconds, and hand back the rest."""
        for loop in self._loops:
            loop.stop()
        _, late = await asyncio.wait(self._running, timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _handle(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        return [await self._handle_one(delivery) for delivery in deliveries]

    async def _handle_one(self, delivery: Delivery) -> Outcome:
        try:
            return await self._deliverer.deliver(_request(delivery.payload), delivery.origin)
        except BadMessageError as exc:
            return await self._give_up(delivery, exc)
        except BusUnavailableError as exc:
            _log.warning("bus_unavailable", error=str(exc))
            return HandBack(_BUS_PAUSE)

    async def _give_up(self, delivery: Delivery, error: BadMessageError) -> Outcome:
        dead_letter = unreadable(delivery.payload, error, delivery.origin)
        event = DeadLettered.of(dead_letter, source="/sender", time=datetime.now(UTC))
        subject = dead_letter_subject(dead_letter.direction, dead_letter.channel)
        try:
            await self._publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))
        except BusUnavailableError:
            return HandBack(_BUS_PAUSE)
        _log.error("dead_letter", reason=error.code, detail=str(error), **delivery.origin.model_dump())
        return Done()


def _request(payload: bytes) -> DeliveryRequest:
    event = decode(payload)
    if not isinstance(event, MessageAccepted | DeliveryDue):
        raise BadMessageError("unexpected_type", f"{event.type} is nothing to send")
    return event.data
