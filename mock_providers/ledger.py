"""What a provider remembers: the messages it accepted, their idempotency keys, and its counts."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

import orjson

REMEMBERED_MESSAGES = 500_000
"""Some 300 MB of ordinary messages; after that the oldest make room."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a message has come, where the provider lets its clients ask."""

    status: str
    updated_at: datetime
    error_code: int | None = None


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    id: str
    idempotency_key: str | None
    accepted_at: datetime
    payload: orjson.Fragment
    """As it was received: kept as bytes, which take a fraction of what the objects would."""
    progress: Progress | None = None


@dataclass(slots=True)
class Counts:
    """Every request to send a message is one of these three."""

    accepted: int = 0
    refused: int = 0
    repeated_keys: int = 0

    @property
    def requests(self) -> int:
        return self.accepted + self.refused + self.repeated_keys


class Ledger:
    def __init__(self, limit: int = REMEMBERED_MESSAGES) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        self._messages: OrderedDict[str, AcceptedMessage] = OrderedDict()
        self._by_key: dict[str, AcceptedMessage] = {}
        self.counts = Counts()

    def add(self, message: AcceptedMessage) -> None:
        """Record a message whose idempotency key is new."""
        if len(self._messages) == self._limit:
            _, oldest = self._messages.popitem(last=False)
            if oldest.idempotency_key is not None:
                del self._by_key[oldest.idempotency_key]
        self._messages[message.id] = message
        if message.idempotency_key is not None:
            self._by_key[message.idempotency_key] = message
        self.counts.accepted += 1

    def find(self, idempotency_key: str) -> AcceptedMessage | None:
        return self._by_key.get(idempotency_key)

    def get(self, message_id: str) -> AcceptedMessage | None:
        return self._messages.get(message_id)

    def replace(self, message: AcceptedMessage) -> None:
        """Remember a message as it is now, unless it has been forgotten."""
        if message.id in self._messages:
            self._messages[message.id] = message

    def messages(self) -> list[AcceptedMessage]:
        """All that are remembered, in the order of acceptance."""
        return list(self._messages.values())
