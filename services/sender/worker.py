"""Runs the sender's consumers: its share of the shards of new messages, and the deliveries that are due."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from services.sender.delivery import Deliverer
from shared.bus.client import Bus
from shared.bus.concurrent import ConcurrentReader
from shared.bus.consumer import Done, Outcome, StreamMessage
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.lag import watch_lag
from shared.bus.membership import Membership
from shared.bus.streams import Streams
from shared.bus.topology import Consumer, sender_delayed, sender_shards
from shared.channels import Channel
from shared.errors import BadMessageError
from shared.events import decode
from shared.message import DeliveryRequest
from shared.observability import tracing

_CAPACITY = 256
"""Messages of a consumer that this process holds at the same time, sent or waiting to be sent."""

_DRAIN_SECONDS = 8
_ATTEMPT_SECONDS = 5
"""The rest of the drain is for recording the results of the attempts."""

_ASSIGNMENT_INTERVAL = 1.0

_SHARDS = {channel: sender_shards(channel) for channel in Channel}
_DELAYED = {channel: sender_delayed(channel) for channel in Channel}


class Worker:
    """Passes the messages of the consumers to `deliverer` until it is stopped."""

    def __init__(self, bus: Bus, deliverer: Deliverer, dead_letters: DeadLetterPublisher) -> None:
        self._bus = bus
        self._deliverer = deliverer
        self._dead_letters = dead_letters
        self._streams = Streams(bus)
        self._memberships = {channel: Membership(bus, f"sender.{channel}") for channel in Channel}
        self._readers: dict[Consumer, ConcurrentReader] = {}
        self._running: dict[Consumer, asyncio.Task[None]] = {}
        self._background: list[asyncio.Task[None]] = []

    def start(self) -> None:
        consumers = [*_DELAYED.values(), *(shard for shards in _SHARDS.values() for shard in shards)]
        self._background = [
            *(asyncio.create_task(membership.run()) for membership in self._memberships.values()),
            asyncio.create_task(watch_lag(self._streams, consumers)),
            asyncio.create_task(self._keep_assigned()),
        ]

    async def unready_reason(self) -> str | None:
        """Return why messages cannot be sent, or None if they can."""
        return await self._streams.unready_reason(next(iter(_DELAYED.values())))

    async def stop(self) -> None:
        """Finish the deliveries in progress within 8 seconds, and return the rest."""
        for membership in self._memberships.values():
            await membership.leave()
        for task in self._background:
            task.cancel()
        for reader in self._readers.values():
            reader.stop()
        self._deliverer.finish_within(_ATTEMPT_SECONDS)
        running = list(self._running.values())
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _keep_assigned(self) -> None:
        """Read the consumers that are this process's share, as processes come and go."""
        while True:
            for channel, membership in self._memberships.items():
                membership.changed.clear()
                # A process that reaches no provider leaves its share to others, which may reach one.
                membership.is_available = self._deliverer.can_send(channel)
                wanted = [*membership.share_of(_SHARDS[channel])]
                if membership.is_available:
                    wanted.append(_DELAYED[channel])
                self._assign(channel, wanted)
            waits = [asyncio.ensure_future(each.changed.wait()) for each in self._memberships.values()]
            await asyncio.wait(waits, timeout=_ASSIGNMENT_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    def _assign(self, channel: Channel, wanted: Sequence[Consumer]) -> None:
        for consumer in (*_SHARDS[channel], _DELAYED[channel]):
            task = self._running.get(consumer)
            if task is not None and task.done():
                with suppress(asyncio.CancelledError):
                    task.result()
                del self._running[consumer], self._readers[consumer]
                task = None
            if consumer in wanted and task is None:
                reader = self._create_reader(channel, consumer)
                self._readers[consumer] = reader
                self._running[consumer] = asyncio.create_task(reader.run())
            elif consumer not in wanted and task is not None:
                self._readers[consumer].stop()

    def _create_reader(self, channel: Channel, consumer: Consumer) -> ConcurrentReader:
        return ConcurrentReader(
            self._bus,
            consumer,
            self._process,
            capacity=_CAPACITY,
            key_of=_conversation_of if consumer.is_pinned else lambda _: None,
            may_read=partial(self._deliverer.can_send, channel),
        )

    async def _process(self, message: StreamMessage) -> Outcome:
        with tracing.processing(message.origin.stream, message.headers):
            try:
                request = _decode_request(message.payload)
                _annotate_trace(request)
                return await self._deliverer.deliver(request, message.origin)
            except BadMessageError as exc:
                await self._dead_letters.publish(message.payload, exc, message.origin, at=message.stored_at)
                return Done()


def _conversation_of(message: StreamMessage) -> str:
    return message.origin.subject


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
