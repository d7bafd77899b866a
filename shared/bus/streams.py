"""What services ask JetStream beside the messages that its consumers bring."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import nats.errors
import nats.js.errors

from shared.bus.client import Bus
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind a consumer is, in messages.

    Attributes:
        pending: that no process was given yet.
        ack_pending: that a process is working on.
    """

    pending: int
    ack_pending: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in a stream."""

    subject: str
    payload: bytes


class Streams:
    """Questions to JetStream; each raises BusUnavailableError when there is no answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def lag(self, consumer: Consumer) -> Lag | None:
        """Tell how far behind the consumer is; None if it is not provisioned."""
        with _translating():
            try:
                info = await self._bus.jetstream.consumer_info(consumer.stream, consumer.name)
            except nats.js.errors.NotFoundError:
                return None
        return Lag(pending=info.num_pending or 0, ack_pending=info.num_ack_pending or 0)

    async def what_is_missing(self, consumer: Consumer) -> str | None:
        """Tell why the consumer could not be read, or None; as `/readyz` has it."""
        try:
            lag = await self.lag(consumer)
        except BusUnavailableError as exc:
            return f"NATS: {exc}"
        return None if lag is not None else "NATS: the streams are not provisioned"

    async def message(self, stream: str, sequence: int) -> Stored | None:
        """Get a message; None if the stream does not have it any more."""
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
