"""Sends events to webhook endpoints on request: tests, retries, and events that were missed."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from services.gateway.http.errors import ConflictError, NotFoundError
from services.gateway.webhook_endpoints.queries import AttemptQueries
from services.gateway.webhook_endpoints.schemas import RecoverRequest, RecoverResponse
from services.gateway.webhook_endpoints.service import WebhookEndpointService
from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage
from shared.bus.publisher import Publisher
from shared.bus.topology import NOTIFICATION_SUBJECTS, Stream
from shared.bus.webhook_deliveries import schedule_delivery
from shared.bus.webhook_positions import PositionStore
from shared.ids import EventId, new_event_id
from shared.notifications import Notification, NotificationType, read_notification
from shared.resources.webhook_endpoints import WebhookEndpointResponse
from shared.webhook_attempts import Trigger
from shared.webhook_endpoints import Delivery, WebhookEndpoint

_BATCH = 200
_RECOVERY_SECONDS = 2.0


class RedeliveryService:
    """Sends events again; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher,
        endpoints: WebhookEndpointService,
        attempts: AttemptQueries,
        clock: Callable[[], datetime],
    ) -> None:
        self._bus = bus
        self._publisher = publisher
        self._positions = PositionStore(bus, publisher)
        self._endpoints = endpoints
        self._attempts = attempts
        self._clock = clock

    async def test(self, id_: UUID | None) -> EventId:
        """Send a test event, and return its id."""
        endpoint = await self._enabled(id_)
        now = self._clock()
        notification = Notification(
            id=new_event_id(),
            type=NotificationType.WEBHOOK_ENDPOINT_TEST,
            occurred_at=now,
            webhook_endpoint=WebhookEndpointResponse.of(endpoint, now).model_dump(mode="json"),
        )
        delivery = Delivery(notification=notification, sequence=None, trigger=Trigger.TEST)
        await schedule_delivery(self._publisher, endpoint, delivery, now)
        return notification.id

    async def retry(self, id_: UUID | None, attempt_id: UUID | None) -> EventId:
        """Send the event of an attempt again, now, and return its id."""
        endpoint = await self._enabled(id_)
        attempt = attempt_id and await self._attempts.get(endpoint.id, attempt_id)
        if not attempt:
            raise NotFoundError("webhook_attempt_not_found", "Attempt not found")
        notification = attempt.sequence and await self._notification(attempt.sequence)
        if not notification or notification.id != attempt.event_id:
            raise ConflictError("event_not_retained", "The event is no longer stored, or was a test")
        delivery = Delivery(notification=notification, sequence=attempt.sequence, trigger=Trigger.RETRY)
        await schedule_delivery(self._publisher, endpoint, delivery, self._clock())
        return notification.id

    async def recover(self, id_: UUID | None, body: RecoverRequest) -> RecoverResponse:
        """Send the events that an endpoint has never received, oldest first.

        Events that have not had their first attempt yet are not included, since they are sent anyway.
        """
        endpoint = await self._enabled(id_)
        end = (await self._positions.get(endpoint.id, endpoint.after)).events
        scheduled, after = 0, body.after
        stop_at = asyncio.get_running_loop().time() + _RECOVERY_SECONDS
        while True:
            messages, is_complete = await self._events(after, body.since)
            found = [each for each in messages if each.sequence <= end]
            missing = await self._missing(endpoint, found)
            now, room = self._clock(), body.limit - scheduled
            await asyncio.gather(
                *(schedule_delivery(self._publisher, endpoint, each, now) for each in missing[:room])
            )
            scheduled += len(missing[:room])
            if len(missing) > room:
                return RecoverResponse(scheduled=scheduled, next_after=(missing[room].sequence or 1) - 1)
            if is_complete or len(found) < len(messages):
                return RecoverResponse(scheduled=scheduled, next_after=None)
            after = found[-1].sequence
            if asyncio.get_running_loop().time() > stop_at:
                return RecoverResponse(scheduled=scheduled, next_after=after)

    async def _missing(self, endpoint: WebhookEndpoint, messages: Sequence[StoredMessage]) -> list[Delivery]:
        deliveries = [
            Delivery(notification=notification, sequence=message.sequence, trigger=Trigger.RECOVERY)
            for message in messages
            if (notification := read_notification(message.sequence, message.payload))
        ]
        wanted = [each for each in deliveries if endpoint.wants(each.notification)]
        received = await self._attempts.received(endpoint.id, [each.notification.id for each in wanted])
        return [each for each in wanted if each.notification.id not in received]

    async def _events(self, after: int, since: datetime) -> tuple[list[StoredMessage], bool]:
        if after:
            answer = await self._bus.next_messages(
                Stream.NOTIFICATIONS, after + 1, count=_BATCH, subject=NOTIFICATION_SUBJECTS
            )
        else:
            answer = await self._bus.messages_since(
                Stream.NOTIFICATIONS, since, count=_BATCH, subject=NOTIFICATION_SUBJECTS
            )
        return answer.messages, answer.is_complete

    async def _notification(self, sequence: int) -> Notification | None:
        answer = await self._bus.next_messages(
            Stream.NOTIFICATIONS, sequence, count=1, subject=NOTIFICATION_SUBJECTS
        )
        found = [each for each in answer.messages if each.sequence == sequence]
        return read_notification(sequence, found[0].payload) if found else None

    async def _enabled(self, id_: UUID | None) -> WebhookEndpoint:
        endpoint = await self._endpoints.get(id_)
        if not endpoint.is_enabled:
            raise ConflictError("webhook_endpoint_disabled", "The webhook endpoint is disabled")
        return endpoint
