"""A notifier, a gateway and ingest in this process, between real servers and an application."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.gateway.app import create_app as create_gateway
from services.gateway.settings import GatewaySettings
from services.ingest.app import create_app as create_ingest
from services.ingest.settings import IngestSettings
from services.notifier.app import create_app
from services.notifier.settings import NotifierSettings
from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, notification_subject
from shared.channels import Channel
from shared.ids import new_event_id
from shared.notifications import Notification, NotificationType
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests.receiver import Receiver, receiving
from tests.waiting import eventually
from tests.webhooks import verifiers

KEY = "a key for the tests of webhooks"
JSON = dict[str, Any]
Start = Callable[..., AbstractAsyncContextManager[None]]


_CHANGE = SuppressionChange(
    channel=Channel.SMS,
    theirs="+18045551234",
    state=SuppressionState.OPTED_OUT,
    source=SuppressionSource.API,
    occurred_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
)


@dataclass(frozen=True)
class Harness:
    """The API of the gateway, the receiver, and the stream of events."""

    client: httpx.AsyncClient
    receiver: Receiver
    bus: Bus
    publisher: Publisher

    async def create(self, name: str, **fields: Any) -> JSON:  # noqa: ANN401 - fields of the request
        """Create an endpoint with this name at the receiver."""
        body = {"url": self.receiver.url(name), **fields}
        response = await self.client.post("/api/webhook-endpoints", json=body)
        assert response.status_code == 201, response.text
        endpoint: JSON = response.json()
        return endpoint

    async def get(self, endpoint: JSON) -> JSON:
        found: JSON = (await self.client.get(f"/api/webhook-endpoints/{endpoint['id']}")).json()
        return found

    async def post(self, endpoint: JSON, action: str, body: JSON | None = None) -> httpx.Response:
        return await self.client.post(f"/api/webhook-endpoints/{endpoint['id']}/{action}", json=body)

    async def patch(self, endpoint: JSON, **changes: Any) -> JSON:  # noqa: ANN401 - fields of the request
        response = await self.client.patch(f"/api/webhook-endpoints/{endpoint['id']}", json=changes)
        assert response.status_code == 200, response.text
        changed: JSON = response.json()
        return changed

    async def attempts(self, endpoint: JSON, count: int, **parameters: Any) -> list[JSON]:  # noqa: ANN401
        """Wait until this many attempts are stored, and return them, newest first."""

        async def look() -> list[JSON] | None:
            path = f"/api/webhook-endpoints/{endpoint['id']}/attempts"
            items: list[JSON] = (await self.client.get(path, params=parameters)).json()["items"]
            return items if len(items) >= count else None

        found = await eventually(look)
        assert found is not None
        return found

    async def publish(self, **fields: Any) -> Notification:  # noqa: ANN401 - fields of the notification
        """Publish an event as ingest does."""
        notification = Notification(
            **{
                "id": new_event_id(),
                "type": NotificationType.RECIPIENT_OPTED_OUT,
                "occurred_at": _CHANGE.occurred_at,
                "channel": Channel.SMS,
                "suppression": _CHANGE,
                **fields,
            }
        )
        subject = notification_subject(notification.type)
        payload = notification.encode()
        await self.publisher.publish(Stream.NOTIFICATIONS, Outgoing(subject, notification.id, payload))
        return notification


@pytest.fixture
async def harness(nats_url: str, database_url: str, bus: Bus, publisher: Publisher) -> AsyncIterator[Harness]:
    settings = GatewaySettings(
        _env_file=None,
        nats_url=nats_url,
        database_url=database_url,
        webhook_endpoint_key=KEY,
        allow_private_webhooks=True,
    )
    gateway = create_gateway(settings, verifiers())
    ingest = create_ingest(IngestSettings(_env_file=None, nats_url=nats_url, database_url=database_url))
    transport = httpx.ASGITransport(gateway, raise_app_exceptions=False)
    async with (
        gateway.router.lifespan_context(gateway),
        ingest.router.lifespan_context(ingest),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
        receiving() as receiver,
    ):

        async def is_ready() -> bool:
            return (await client.get("/readyz")).is_success

        await eventually(is_ready)
        yield Harness(client, receiver, bus, publisher)


@pytest.fixture
def start_notifier(nats_url: str, database_url: str) -> Start:
    """Return a function that runs a notifier, with settings of a notifier."""

    @asynccontextmanager
    async def run(**values: Any) -> AsyncIterator[None]:  # noqa: ANN401 - settings
        settings = NotifierSettings(
            _env_file=None,
            **{
                "nats_url": nats_url,
                "database_url": database_url,
                "webhook_endpoint_key": KEY,
                "allow_private_webhooks": True,
                "webhook_retry_delays": "0.2,0.2,0.2",
                **values,
            },
        )
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            yield

    return run
