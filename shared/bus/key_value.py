"""Versioned values in JetStream: the last message of each subject, changed by compare-and-set.

A key-value bucket is accessed as the stream behind it: there is no binding to renew when the connection
changes, two permissions on the server are enough, and values that are written at the same time share a batch.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from shared.bus.client import Bus
from shared.bus.last_messages import LastMessages
from shared.bus.publisher import Outgoing, Publisher, PublishRejectedError
from shared.bus.topology import LONGEST_RETENTION
from shared.errors import BadMessageError
from shared.ids import EventId

_WRONG_LAST_SEQUENCE = {10_071, 10_164}

Model = TypeVar("Model", bound=BaseModel)


class RevisionConflictError(Exception):
    """Another writer has changed the value in the meantime."""


class UnreadableValueError(BadMessageError):
    """A value cannot be read: it is damaged, or a later release has written it.

    A handler that cannot proceed without the value dead-letters its message.

    Attributes:
        revision: the revision of the value; a change that follows it replaces the value.
        stored_at: when the value was written.
    """

    def __init__(self, name: str, *, revision: int, stored_at: datetime) -> None:
        super().__init__("unreadable_state", f"the value of {name} cannot be read (revision {revision})")
        self.revision = revision
        self.stored_at = stored_at


@dataclass(frozen=True, slots=True)
class Versioned(Generic[Model]):
    """A value as it was read or written, with the revision that the next change has to refer to."""

    value: Model
    revision: int


class KeyValueStore(Generic[Model]):
    """The values of a stream, by key; its methods raise BusUnavailableError when NATS does not answer.

    Args:
        bus: the connection.
        publisher: writes the values.
        stream: the stream whose last messages are the values.
        model: the type of the values.
        prefix: the beginning of the subjects, which the keys follow.
    """

    def __init__(
        self, bus: Bus, publisher: Publisher, stream: str, model: type[Model], *, prefix: str = ""
    ) -> None:
        self._reader = LastMessages(bus, stream)
        self._publisher = publisher
        self._stream = stream
        self._model = model
        self._prefix = prefix

    @classmethod
    def bucket(cls, bus: Bus, publisher: Publisher, name: str, model: type[Model]) -> "KeyValueStore[Model]":
        """Return the store of a key-value bucket."""
        return cls(bus, publisher, f"KV_{name}", model, prefix=f"$KV.{name}.")

    async def get(self, key: str) -> Versioned[Model] | None:
        """Return a value, or None if there is none.

        Raises:
            UnreadableValueError: there is a value that is not of the expected type.
        """
        found = await self._reader.get(self._prefix + key)
        if found is None:
            return None
        try:
            value = self._model.model_validate_json(found.payload)
        except ValidationError:  # its message contains the value, which may be private
            stored_at = datetime.fromisoformat(found.stored_at)
            error = UnreadableValueError(found.subject, revision=found.sequence, stored_at=stored_at)
        else:
            return Versioned(value, found.sequence)
        raise error

    async def put(
        self,
        key: str,
        value: Model,
        *,
        after: Versioned[Model] | UnreadableValueError | None,
        id_: EventId | None = None,
        ttl: timedelta | None = None,
    ) -> Versioned[Model]:
        """Write a value if the current one is still `after`, or if there is none and `after` is None.

        Args:
            key: names the value.
            value: the value.
            after: the value as it was read, or the error if it could not be read.
            id_: the id of the event, if the value is one; publishing an event again changes nothing.
            ttl: how long the value is kept if it is not changed; None for as long as the stream keeps values.

        Raises:
            RevisionConflictError: the value has changed.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(after.revision if after else 0)}
        if ttl:
            # The server refuses times that are too long for its clock, such as that of the year 9999.
            seconds = min(ttl, LONGEST_RETENTION).total_seconds()
            headers["Nats-TTL"] = f"{math.ceil(seconds)}s"
        data = value.model_dump_json(by_alias=True).encode()
        try:
            revision = await self._publisher.publish(
                self._stream, Outgoing(self._prefix + key, id_, data, headers)
            )
        except PublishRejectedError as exc:
            if exc.code in _WRONG_LAST_SEQUENCE:
                raise RevisionConflictError from exc
            raise
        return Versioned(value, revision)
