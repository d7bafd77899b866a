"""Disables endpoints that are gone, or that have done nothing but fail for days."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from shared.bus.key_value import RevisionConflictError
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, notification_subject
from shared.bus.webhook_endpoints import EndpointStore
from shared.errors import UnavailableError
from shared.ids import EndpointId, notification_id
from shared.notifications import Notification, NotificationType
from shared.observability.metrics import WEBHOOK_DISABLED
from shared.resources.webhook_endpoints import WebhookEndpointResponse
from shared.webhook_endpoints import DisabledReason, WebhookEndpoint

_log = structlog.get_logger()

FAILING_FOR = timedelta(days=5)
_CHECK_INTERVAL = timedelta(minutes=10)

FailingSince = Callable[[WebhookEndpoint], Awaitable[datetime | None]]
"""Returns the time of the first failure that no success has followed, since the endpoint was enabled."""


class Disabling:
    """Disables endpoints, and notifies applications with an event."""

    def __init__(
        self,
        store: EndpointStore,
        publisher: Publisher,
        failing_since: FailingSince,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._failing_since = failing_since
        self._clock = clock
        self._checked_at: dict[EndpointId, datetime] = {}

    async def consider(self, endpoint: WebhookEndpoint) -> None:
        """Disable an endpoint after a failure if it has only failed for days; check this occasionally."""
        now = self._clock()
        last = self._checked_at.get(endpoint.id)
        if last is not None and now - last < _CHECK_INTERVAL:
            return
        self._checked_at[endpoint.id] = now
        try:
            since = await self._failing_since(endpoint)
            if since is not None and now - since >= FAILING_FOR:
                await self.disable(endpoint, DisabledReason.FAILING)
        except UnavailableError:
            del self._checked_at[endpoint.id]  # the next failure is early enough

    async def disable(self, endpoint: WebhookEndpoint, reason: DisabledReason) -> None:
        """Disable an endpoint, unless it has been disabled or enabled again in the meantime.

        Raises:
            BusUnavailableError: NATS does not respond; it may be called again.
        """
        found = await self._store.get(endpoint.id)
        if found is None or not found.value.is_enabled or found.value.after != endpoint.after:
            return
        now = self._clock()
        disabled = found.value.disabled(reason, now)
        type_ = NotificationType.WEBHOOK_ENDPOINT_DISABLED
        notification = Notification(
            id=notification_id(type_, endpoint.id, endpoint.after),
            type=type_,
            occurred_at=now,
            webhook_endpoint=WebhookEndpointResponse.of(disabled, now).model_dump(mode="json"),
        )
        # The event comes first, since its id makes a repetition harmless.
        await self._publisher.publish(
            Stream.NOTIFICATIONS,
            Outgoing(notification_subject(type_), notification.id, notification.encode()),
        )
        try:
            await self._store.put(disabled, after=found)
        except RevisionConflictError:
            await self.disable(endpoint, reason)
            return
        WEBHOOK_DISABLED.labels(reason).inc()
        _log.warning("webhook_endpoint_disabled", endpoint_id=str(endpoint.id), reason=reason)
