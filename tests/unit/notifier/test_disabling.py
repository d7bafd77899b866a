from datetime import UTC, datetime, timedelta

import pytest

from services.notifier.disabling import FAILING_FOR, Disabling
from shared.bus.topology import WEBHOOK_ENDPOINTS_BUCKET, Stream
from shared.bus.webhook_endpoints import EndpointStore
from shared.errors import DatabaseUnavailableError
from shared.ids import new_endpoint_id
from shared.notifications import Notification, NotificationType
from shared.webhook_endpoints import DisabledReason, WebhookEndpoint
from tests.jetstream import BusTo, JetStream, PublisherTo

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class World:
    """An endpoint that has been failing for some time."""

    def __init__(self) -> None:
        self.now = NOW
        self.failing_since: datetime | None = NOW
        self.checks = 0
        self.server = JetStream(lambda: self.now)
        publisher = PublisherTo(self.server)
        self.store = EndpointStore(BusTo(self.server), publisher)
        self.disabling = Disabling(self.store, publisher, self._since, lambda: self.now)
        self.endpoint = WebhookEndpoint(
            id=new_endpoint_id(),
            url="https://example.com/",
            secrets=[],
            after=7,
            enabled_at=NOW,
            created_at=NOW,
            updated_at=NOW,
        )

    async def _since(self, _: WebhookEndpoint) -> datetime | None:
        self.checks += 1
        return self.failing_since

    async def reason(self) -> DisabledReason | None:
        found = await self.store.get(self.endpoint.id)
        assert found is not None
        return found.value.disabled_reason

    def notifications(self) -> list[Notification]:
        messages = self.server.messages(Stream.NOTIFICATIONS)
        return [Notification.model_validate_json(message.payload) for message in messages]


@pytest.fixture
async def world() -> World:
    world = World()
    await world.store.put(world.endpoint, after=None)
    return world


async def test_five_days_of_failures_disable_an_endpoint(world: World) -> None:
    world.now = NOW + FAILING_FOR - timedelta(seconds=1)
    await world.disabling.consider(world.endpoint)
    assert await world.reason() is None

    world.now = NOW + FAILING_FOR + timedelta(hours=1)
    await world.disabling.consider(world.endpoint)

    assert await world.reason() is DisabledReason.FAILING
    (told,) = world.notifications()
    assert told.type is NotificationType.WEBHOOK_ENDPOINT_DISABLED
    assert told.webhook_endpoint is not None
    assert told.webhook_endpoint["id"] == str(world.endpoint.id)
    assert "secret" not in told.webhook_endpoint


async def test_failures_after_a_success_do_not_count(world: World) -> None:
    world.now, world.failing_since = NOW + 2 * FAILING_FOR, None
    await world.disabling.consider(world.endpoint)
    assert await world.reason() is None


async def test_the_failures_are_not_looked_up_each_time(world: World) -> None:
    for _ in range(3):
        await world.disabling.consider(world.endpoint)
    assert world.checks == 1
    world.now += timedelta(minutes=11)
    await world.disabling.consider(world.endpoint)
    assert world.checks == 2


async def test_without_postgresql_an_endpoint_stays_enabled(world: World) -> None:
    async def fail(_: WebhookEndpoint) -> datetime | None:
        raise DatabaseUnavailableError

    world.disabling._failing_since = fail  # noqa: SLF001
    await world.disabling.consider(world.endpoint)
    assert await world.reason() is None


async def test_an_endpoint_that_was_enabled_again_stays_enabled(world: World) -> None:
    found = await world.store.get(world.endpoint.id)
    await world.store.put(world.endpoint.model_copy(update={"after": 8}), after=found)

    await world.disabling.disable(world.endpoint, DisabledReason.GONE)

    assert await world.reason() is None
    assert world.notifications() == []


async def test_disabling_twice_tells_once(world: World) -> None:
    for _ in range(2):
        await world.disabling.disable(world.endpoint, DisabledReason.GONE)
    assert len(world.notifications()) == 1
    assert len(world.server.messages(f"KV_{WEBHOOK_ENDPOINTS_BUCKET}")) == 1
