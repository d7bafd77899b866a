"""Requests to JetStream about its streams and consumers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import nats.errors
import nats.js.errors

from shared.bus.client import Bus
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError


@dataclass(frozen=True, slots=True)
class Lag:
    """The backlog of a consumer, in messages.

    Attributes:
        pending: messages that no process has received yet.
        ack_pending: messages that a process is working on.
    """

    pending: int
    ack_pending: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it is stored in a stream."""

    subject: str
    payload: bytes


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
        return Lag(pending=info.num_pending or 0, ack_pending=info.num_ack_pending or 0)

    async def unready_reason(self, consumer: Consumer) -> str | None:
        """Return the reason why a consumer cannot be read, for `/readyz`, or None if it can."""
        try:
            lag = await self.lag(consumer)
        except BusUnavailableError as exc:
            return f"NATS: {exc}"
        return None if lag is not None else "NATS: the streams are not provisioned"

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
