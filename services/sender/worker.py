"""Reads the sender's consumers: its share of the shards of new messages, and the deliveries that are due."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

import structlog

from services.sender.delivery import Deliverer
from shared import supervision
from shared.bus.client import Bus
from shared.bus.concurrent import PATIENCE, ConcurrentReader
from shared.bus.consumer import Done, Outcome, StreamMessage
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.lag import watch_lag
from shared.bus.membership import Membership, State
from shared.bus.processing import Begin
from shared.bus.streams import Streams
from shared.bus.topology import MAX_DELIVER, Consumer, Stream, missing_shards, sender_delayed, shard_named
from shared.channels import Channel
from shared.errors import BadMessageError, BusUnavailableError
from shared.events import decode
from shared.message import DeliveryRequest, Priority
from shared.observability import tracing

_log = structlog.get_logger()

_CAPACITY = 4_096
"""Messages of one consumer in this process. The number only bounds the memory; the providers' limits
determine how many are sent at the same time."""

_DRAIN_SECONDS = 8
_ATTEMPT_SECONDS = 4
"""The rest of the drain is for recording the results of the attempts."""

_ASSIGNMENT_INTERVAL = 1.0
_DISCOVERY_INTERVAL = 2.0

_CONVERSATION = re.compile(rb'"conversation_key":\s*"([0-9a-f-]{36})"')


class Worker:
    """Passes the messages of the consumers to `deliverer` until it is stopped."""

    def __init__(self, bus: Bus, deliverer: Deliverer, dead_letters: DeadLetterPublisher) -> None:
        self._bus = bus
        self._deliverer = deliverer
        self._streams = Streams(bus)
        processor = Processor(deliverer, dead_letters)
        self._channels = [_ChannelWorker(bus, channel, deliverer, processor) for channel in Channel]

    def start(self) -> None:
        for channel in self._channels:
            channel.start()
        self._background = [
            supervision.supervise("discovery of shards", self._discover_shards()),
            supervision.supervise("lag", watch_lag(self._streams, lambda: self._consumers)),
        ]

    @property
    def _consumers(self) -> list[Consumer]:
        return [consumer for channel in self._channels for consumer in channel.consumers]

    async def _discover_shards(self) -> None:
        """Keep track of the provisioned shards, whose number may change at any time."""
        while True:
            await supervision.patiently(self._bus.until_connected())
            with suppress(BusUnavailableError):
                names = await supervision.patiently(self._streams.consumers_of(Stream.OUTBOUND))
                for channel in self._channels:
                    channel.set_shards(names)
            await asyncio.sleep(_DISCOVERY_INTERVAL)

    async def unready_reason(self) -> str | None:
        """Return why messages cannot be sent, or None if they can."""
        needed = [each for channel in self._channels for each in (channel.delayed, *channel.missing)]
        if reason := await self._streams.unready_reason(needed):
            return reason
        are_provisioned = all(channel.shards for channel in self._channels)
        return None if are_provisioned else "NATS: the shards are not provisioned"

    async def stop(self) -> None:
        """Finish the deliveries in progress within 8 seconds, and return the others."""
        for task in self._background:
            supervision.release(task).cancel()
        stopping = [asyncio.create_task(channel.stop()) for channel in self._channels]
        _, busy = await asyncio.wait(stopping, timeout=PATIENCE)
        if busy:
            self._deliverer.finish_within(_ATTEMPT_SECONDS)
            _, busy = await asyncio.wait(busy, timeout=_DRAIN_SECONDS - PATIENCE)
        if busy:
            for channel in self._channels:
                channel.abandon()
            await asyncio.wait(busy)


class _ChannelWorker:
    """Reads this process's share of the consumers of a channel, as processes come and go."""

    def __init__(self, bus: Bus, channel: Channel, deliverer: Deliverer, processor: "Processor") -> None:
        self._bus = bus
        self._channel = channel
        self._deliverer = deliverer
        self._processor = processor
        self._membership = Membership(bus, f"sender.{channel}")
        self.delayed = sender_delayed(channel)
        self.shards: dict[str, Consumer] = {}
        self.missing: list[Consumer] = []
        self._readers: dict[Consumer, ConcurrentReader] = {}
        self._running: dict[Consumer, asyncio.Task[None]] = {}
        self._background: list[asyncio.Task[None]] = []
        self._assigning: asyncio.Task[None] | None = None

    @property
    def consumers(self) -> list[Consumer]:
        return [self.delayed, *self.shards.values(), *self.missing]

    def set_shards(self, names: Sequence[str]) -> None:
        """Read only those shards of the channel that are among these consumers."""
        self.missing = missing_shards(names, self._channel)
        shards = [shard for name in sorted(names) if (shard := shard_named(name, self._channel))]
        if shards != [*self.shards.values()]:
            self.shards = {shard.name: shard for shard in shards}
            self._membership.changed.set()

    def start(self) -> None:
        self._background = [
            supervision.supervise(f"membership of {self._channel}", self._membership.run()),
            supervision.supervise(f"assignment of {self._channel}", self._keep_assigned()),
        ]

    async def stop(self) -> None:
        """Stop reading, and leave the group when all messages are finished or returned."""
        presence, assigning = self._background
        supervision.release(assigning).cancel()
        self._membership.set_state(State.LEAVING)
        for reader in self._readers.values():
            reader.stop()
        while self._running:
            await asyncio.wait([*self._running.values()])
        supervision.release(presence).cancel()
        await self._membership.leave()

    def abandon(self) -> None:
        """Return the messages that are still in progress."""
        for task in self._running.values():
            supervision.release(task).cancel()

    async def _keep_assigned(self) -> None:
        while True:
            supervision.beat()
            self._membership.changed.clear()
            self._membership.set_state(self._state)
            self._assign()
            with suppress(TimeoutError):
                async with asyncio.timeout(_ASSIGNMENT_INTERVAL):
                    await self._membership.changed.wait()

    @property
    def _state(self) -> State:
        if self._deliverer.is_healthy(self._channel):
            return State.READY
        # A process that cannot reach any provider leaves its share to others, which may reach one.
        return State.TRYING if self._deliverer.can_send(self._channel) else State.UNABLE

    def _assign(self) -> None:
        # Divided by priority, since often only the shards of one of them have messages.
        shards = ([name for name in self.shards if f"-{priority}-" in name] for priority in Priority)
        share = list(chain.from_iterable(map(self._membership.share_of, shards)))
        for consumer, reader in self._readers.items():
            if consumer is not self.delayed and consumer.name not in share:
                reader.stop()
        for name in share:
            if not self._membership.is_held_by_others(name):
                self._read(self.shards[name])
        self._read(self.delayed)

    def _read(self, consumer: Consumer) -> None:
        if consumer in self._running:
            return
        self._readers[consumer] = ConcurrentReader(
            self._bus,
            consumer,
            self._processor.process,
            capacity=_CAPACITY,
            key_of=_conversation_of if consumer.is_pinned else lambda _: None,
            may_read=lambda: self._deliverer.can_send(self._channel),
            move=self._processor.move,
        )
        self._membership.hold(consumer.name)
        task = supervision.supervise(f"reader of {consumer.name}", self._readers[consumer].run())
        self._running[consumer] = task
        task.add_done_callback(lambda _: self._release(consumer))

    def _release(self, consumer: Consumer) -> None:
        task = self._running.pop(consumer)
        del self._readers[consumer]
        if not task.cancelled() and (error := task.exception()):
            _log.error("reader_failed", consumer=consumer.name, error=repr(error))
        self._membership.release(consumer.name)


class Processor:
    """Processes the messages that the readers pass to it."""

    def __init__(self, deliverer: Deliverer, dead_letters: DeadLetterPublisher) -> None:
        self._deliverer = deliverer
        self._dead_letters = dead_letters

    async def process(self, message: StreamMessage, begin: Begin) -> Outcome:
        with tracing.processing(message.origin.stream, message.headers):
            try:
                request = _decode_request(message.payload)
                _annotate_trace(request)
                return await self._deliverer.deliver(
                    request,
                    message.origin,
                    begin=begin,
                    keeps_place=message.origin.stream == Stream.OUTBOUND and not _moves_often(message),
                    may_wait=not _moves_often(message),
                )
            except BadMessageError as exc:
                await self._dead_letters.publish(message.payload, exc, message.origin, at=message.stored_at)
                return Done()

    async def move(self, message: StreamMessage) -> bool:
        """Move a message to DELAYED instead of returning it if it has moved too often, perhaps untried.

        Raises:
            BusUnavailableError: NATS does not answer.
        """
        if not _moves_often(message):
            return False
        try:
            request = _decode_request(message.payload)
        except BadMessageError:
            return False
        await self._deliverer.schedule_again(request, message.stored_at)
        return True


def _moves_often(message: StreamMessage) -> bool:
    """Return whether a message has moved between processes so often that it must not wait any longer.

    Each time that a process stops and returns it counts as a delivery. The message is moved to DELAYED before
    these reach the limit, which is meant for messages that crash their process. There, it starts again.
    """
    return message.deliveries > MAX_DELIVER // 2


def _conversation_of(message: StreamMessage) -> str:
    """Return the key of a message's conversation without decoding the message, which may be invalid."""
    found = _CONVERSATION.search(message.payload)
    return found[1].decode() if found else message.origin.subject


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
