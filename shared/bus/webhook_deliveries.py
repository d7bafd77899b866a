"""Schedules the delivery of an event to a webhook endpoint."""

from datetime import UTC, datetime, timedelta

from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, webhook_due_subject, webhook_wait_subject
from shared.webhook_endpoints import Delivery, WebhookEndpoint


async def schedule_delivery(
    publisher: Publisher, endpoint: WebhookEndpoint, delivery: Delivery, at: datetime
) -> None:
    """Schedule the delivery of an event by a notifier, replacing its earlier schedule if there is one.

    Raises:
        BusUnavailableError: NATS does not respond.
    """
    place = endpoint.id, endpoint.after, delivery.notification.id
    headers = {"Nats-Schedule": f"@at {_rfc3339(at)}", "Nats-Schedule-Target": webhook_due_subject(*place)}
    # Without an id: the same event may be scheduled for the same endpoint any number of times.
    outgoing = Outgoing(
        webhook_wait_subject(*place), None, delivery.model_dump_json(by_alias=True).encode(), headers
    )
    await publisher.publish(Stream.WEBHOOK_RETRIES, outgoing)


def _rfc3339(moment: datetime) -> str:
    # The server reads milliseconds; truncating the rest would deliver the event early.
    moment += timedelta(milliseconds=1)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
