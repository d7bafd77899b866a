"""Server-sent events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from messaging_client.models import (
    ConversationEvent,
    DeadLetterEvent,
    MessageEvent,
    SuppressionEvent,
    WebhookEndpointEvent,
)

Event = ConversationEvent | DeadLetterEvent | MessageEvent | SuppressionEvent | WebhookEndpointEvent


@dataclass
class EventParser:
    """Parses server-sent events.

    Attributes:
        last_id: of the last event that was complete.
    """

    last_id: str | None = None
    _rest: bytes = b""
    _id: str | None = None
    _data: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """Forget an event that was interrupted, since the connection was lost."""
        self._rest, self._id, self._data = b"", None, []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Parse a part of the stream, and yield the events that it completes."""
        # Texts may contain characters that Python's `splitlines` takes for the end of a line.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if event := self._parse(line.removesuffix(b"\r").decode()):
                yield event

    def _parse(self, line: str) -> Event | None:
        name, _, value = line.partition(":")
        if name == "id":
            self._id = value.removeprefix(" ")
        elif name == "data":
            self._data.append(value.removeprefix(" "))
        return None if line else self._complete()

    def _complete(self) -> Event | None:
        data, self._data = "\n".join(self._data), []
        self.last_id, self._id = self._id or self.last_id, None
        if not data:
            return None
        event: Event = json.loads(data)
        return event
