"""The memory of an API: the messages that it has accepted, their idempotency keys, and its statistics."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from pydantic import BaseModel, computed_field

MAX_MESSAGES = 500_000
"""About 300 MB of ordinary messages. Older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The current status of a message, for APIs that let clients query it."""

    status: str
    updated_at: datetime
    error_code: int | None = None


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    id: str
    provider: str
    idempotency_key: str | None
    accepted_at: datetime
    payload: orjson.Fragment
    """The payload as received, kept as bytes: they take a fraction of the memory of parsed objects."""
    progress: Progress | None = None


class Stats(BaseModel):
    """Counts of the requests to send a message. Each is accepted, refused, or repeats a key."""

    accepted: int = 0
    refused: int = 0
    repeated_keys: int = 0

    @computed_field  # type: ignore[prop-decorator]  # mypy has no decorated properties
    @property
    def requests(self) -> int:
        return self.accepted + self.refused + self.repeated_keys

    def __add__(self, other: "Stats") -> "Stats":
        return Stats(
            accepted=self.accepted + other.accepted,
            refused=self.refused + other.refused,
            repeated_keys=self.repeated_keys + other.repeated_keys,
        )


class Ledger:
    def __init__(self, provider: str, limit: int = MAX_MESSAGES) -> None:
        self._provider = provider
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        self._messages: OrderedDict[str, AcceptedMessage] = OrderedDict()
        self._by_key: dict[str, AcceptedMessage] = {}
        self.stats = Stats()

    def accept(
        self,
        message_id: str,
        payload: bytes,
        *,
        idempotency_key: str | None = None,
        status: str | None = None,
    ) -> AcceptedMessage:
        """Record a new message, whose idempotency key must not have been used before."""
        if len(self._messages) == self._limit:
            self._forget_oldest()
        now = datetime.now(UTC)
        message = AcceptedMessage(
            id=message_id,
            provider=self._provider,
            idempotency_key=idempotency_key,
            accepted_at=now,
            payload=orjson.Fragment(payload),
            progress=Progress(status, now) if status else None,
        )
        self._messages[message_id] = message
        if idempotency_key is not None:
            self._by_key[idempotency_key] = message
        self.stats.accepted += 1
        return message

    def find(self, idempotency_key: str) -> AcceptedMessage | None:
        """Return the message that was accepted with an idempotency key."""
        return self._by_key.get(idempotency_key)

    def get(self, message_id: str) -> AcceptedMessage | None:
        return self._messages.get(message_id)

    def replace(self, message: AcceptedMessage) -> None:
        """Store the new state of a message, unless the message has been forgotten."""
        if message.id in self._messages:
            self._messages[message.id] = message

    def messages(self) -> list[AcceptedMessage]:
        """Return all remembered messages, oldest first."""
        return list(self._messages.values())

    def _forget_oldest(self) -> None:
        _, oldest = self._messages.popitem(last=False)
        if oldest.idempotency_key is not None:
            del self._by_key[oldest.idempotency_key]


def bare_key(key: str | None) -> str | None:
    """Return an idempotency key without the quotes it may be sent in, or None if there is no key."""
    return key.strip().strip('"') or None if key else None
