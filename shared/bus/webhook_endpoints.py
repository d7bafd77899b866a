"""The configuration of webhook endpoints, in a key-value bucket that the gateway and the notifier read."""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from pydantic import ValidationError

from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage
from shared.bus.key_value import KeyValueStore, Versioned
from shared.bus.publisher import Publisher
from shared.bus.topology import WEBHOOK_ENDPOINTS_BUCKET
from shared.ids import EndpointId
from shared.webhook_endpoints import WebhookEndpoint

_log = structlog.get_logger()

_STREAM = f"KV_{WEBHOOK_ENDPOINTS_BUCKET}"
_ALL = f"$KV.{WEBHOOK_ENDPOINTS_BUCKET}.>"
_BATCH = 500

_TOMBSTONE = timedelta(days=1)
"""How long a deleted endpoint is remembered: longer than a notifier needs to notice it."""


class EndpointStore:
    """Reads and writes endpoints; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._bus = bus
        self._values = KeyValueStore.bucket(bus, publisher, WEBHOOK_ENDPOINTS_BUCKET, WebhookEndpoint)

    async def get(self, id_: EndpointId) -> Versioned[WebhookEndpoint] | None:
        """Return an endpoint, or None if there is none. One that was deleted is returned for a day.

        Raises:
            UnreadableValueError: a later release has written it, or it is damaged.
        """
        return await self._values.get(str(id_))

    async def put(
        self, endpoint: WebhookEndpoint, *, after: Versioned[WebhookEndpoint] | None
    ) -> Versioned[WebhookEndpoint]:
        """Write an endpoint if the current one is still `after`.

        Raises:
            RevisionConflictError: it has changed.
        """
        ttl = _TOMBSTONE if endpoint.is_deleted else None
        return await self._values.put(str(endpoint.id), endpoint, after=after, ttl=ttl)

    async def changes(self, after: int = 0) -> tuple[list[WebhookEndpoint], int]:
        """Return the endpoints that were written after a revision, and the last revision.

        Those that were deleted are among them for a while.
        """
        found: list[WebhookEndpoint] = []
        is_complete = False
        while not is_complete:
            answer = await self._bus.next_messages(_STREAM, after + 1, count=_BATCH, subject=_ALL)
            found += _readable(answer.messages)
            after = answer.messages[-1].sequence if answer.messages else after
            is_complete = answer.is_complete
        return found, after


def _readable(messages: Sequence[StoredMessage]) -> list[WebhookEndpoint]:
    found: list[WebhookEndpoint] = []
    for message in messages:
        try:
            found.append(WebhookEndpoint.model_validate_json(message.payload))
        except ValidationError:
            _log.error("webhook_endpoint_unreadable", subject=message.subject, revision=message.sequence)
    return found
