"""Requests to JetStream about its streams and consumers."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import nats.errors
import nats.js.errors

from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError


@dataclass(frozen=True, slots=True)
class Lag:
    """The backlog of a consumer, in messages.

    Attributes:
        pending: messages that no process has received yet.
        ack_pending: messages that a process is working on.
        done: the sequence up to which all messages are processed.
        delivered: the sequence of the newest message that was delivered, or None if there is none yet.
        subjects: the subjects of its messages.
    """

    pending: int
    ack_pending: int
    done: int = 0
    delivered: int | None = None
    subjects: tuple[str, ...] = (">",)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it is stored in a stream."""

    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """The sequences of the first and the last message of a stream.

    If the stream is empty, `first` is the sequence that the next message will have.
    """

    first: int
    last: int


class Streams:
    """The streams of the server; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def lag(self, consumer: Consumer) -> Lag | None:
        """Return the backlog of a consumer, or None if the consumer is not provisioned."""
        with _translating():
            try:
                info = await self._bus.jetstream.consumer_info(consumer.stream, consumer.name)
            except nats.js.errors.NotFoundError:
                return None
        is_delivered = info.delivered is not None and info.delivered.consumer_seq > 0
        return Lag(
            pending=info.num_pending or 0,
            ack_pending=info.num_ack_pending or 0,
            done=info.ack_floor.stream_seq if info.ack_floor else 0,
            delivered=info.delivered.stream_seq if info.delivered and is_delivered else None,
            subjects=tuple(info.config.filter_subjects or (info.config.filter_subject or ">",)),
        )

    async def oldest(self, stream: str, subjects: Sequence[str], after: int) -> StoredMessage | None:
        """Return the oldest message of any of the subjects after a sequence, or None if there is none."""
        answers = await asyncio.gather(
            *(self._bus.next_messages(stream, after + 1, count=1, subject=subject) for subject in subjects)
        )
        found = (message for answer in answers for message in answer.messages)
        return min(found, key=lambda message: message.sequence, default=None)

    async def bounds(self, stream: str) -> Bounds:
        """Return the first and the last sequence of a stream."""
        with _translating():
            state = (await self._bus.jetstream.stream_info(stream)).state
        return Bounds(first=max(state.first_seq, 1), last=state.last_seq)

    async def unready_reason(self, consumers: Iterable[Consumer]) -> str | None:
        """Return the reason why not all consumers can be read, for `/readyz`, or None if they can."""
        try:
            for consumer in consumers:
                if await self.lag(consumer) is None:
                    return f"NATS: the consumer {consumer.name} of {consumer.stream} is not provisioned"
        except BusUnavailableError as exc:
            return f"NATS: {exc}"
        return None

    async def consumers_of(self, stream: str) -> list[str]:
        """Return the names of the consumers of a stream, of which the server lists up to 1,024."""
        with _translating():
            answer = await self._bus.client.request(f"$JS.API.CONSUMER.NAMES.{stream}", b"{}")
        names = json.loads(answer.data)
        if error := names.get("error"):
            raise BusUnavailableError(str(error))
        return names.get("consumers") or []

    async def time(self, consumer: Consumer) -> datetime:
        """Return the time of the server, which it states in its answers about a consumer."""
        subject = f"$JS.API.CONSUMER.INFO.{consumer.stream}.{consumer.name}"
        with _translating():
            answer = await self._bus.client.request(subject)
        info = json.loads(answer.data)
        if "ts" not in info:
            raise BusUnavailableError(str(info.get("error")))
        return datetime.fromisoformat(info["ts"])

    async def message(self, stream: str, sequence: int) -> Stored | None:
        """Return a message, or None if the stream no longer contains it."""
        with _translating():
            try:
                message = await self._bus.jetstream.get_msg(stream, sequence, direct=True)
            except nats.js.errors.NotFoundError:
                return None
        return Stored(subject=message.subject or "", payload=message.data or b"")


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as exc:
        raise BusUnavailableError(str(exc) or type(exc).__name__) from exc
