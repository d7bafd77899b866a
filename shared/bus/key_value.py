"""The last message of each subject as a value, changed by compare-and-set.

A key-value bucket of JetStream is spoken to as the stream that it is: no binding to renew when the connection
changes, two rights on the server are enough, and what is written at the same time is written together.
"""

from dataclasses import dataclass

import nats.errors
import nats.js.errors

from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher, RefusedError
from shared.errors import BusUnavailableError
from shared.ids import EventId

_WRONG_LAST_SEQUENCE = {10_071, 10_164}


class ConflictError(Exception):
    """Somebody else changed the value meanwhile."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was read, with the revision that a change has to name."""

    data: bytes
    revision: int


class Values:
    """Those of a stream, by subject; every method raises BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher, stream: str) -> None:
        self._bus = bus
        self._publisher = publisher
        self._stream = stream

    async def get(self, subject: str) -> Value | None:
        jetstream = self._bus.jetstream
        try:
            found = await jetstream.get_last_msg(self._stream, subject, direct=True)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            raise BusUnavailableError(f"{self._stream}: {exc!r}") from exc
        return Value(found.data or b"", found.seq or 0)

    async def put(self, subject: str, data: bytes, *, revision: int, id_: EventId | None = None) -> int:
        """Write a value if it still has `revision` (0: if there is none), and return its new revision.

        Of an event, `id_` makes a repetition recognisable, which then changes nothing.

        Raises:
            ConflictError: it does not.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        outgoing = Outgoing(subject, id_, data, headers)
        try:
            return await self._publisher.publish(self._stream, outgoing)
        except RefusedError as exc:
            if exc.code in _WRONG_LAST_SEQUENCE:
                raise ConflictError from exc
            raise


class Bucket(Values):
    """The values of the bucket `name`, by key."""

    def __init__(self, bus: Bus, publisher: Publisher, name: str) -> None:
        super().__init__(bus, publisher, f"KV_{name}")
        self._subjects = f"$KV.{name}."

    async def get(self, key: str) -> Value | None:
        return await super().get(self._subjects + key)

    async def put(self, key: str, data: bytes, *, revision: int, id_: EventId | None = None) -> int:
        return await super().put(self._subjects + key, data, revision=revision, id_=id_)
