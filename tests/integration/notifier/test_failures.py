"""The time since which an endpoint has only failed."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from services.notifier.failures import Failures
from shared.db import tables
from shared.db.reader import Reader
from shared.ids import EndpointId, new_endpoint_id
from shared.webhook_endpoints import WebhookEndpoint

pytestmark = pytest.mark.integration

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ENDPOINT = new_endpoint_id()


def attempt(hours: float, *, succeeded: bool, endpoint: UUID = ENDPOINT) -> dict[str, object]:
    return {
        "id": uuid4(),
        "endpoint_id": endpoint,
        "event_id": uuid4(),
        "event_type": "message.sent",
        "attempt": 1,
        "trigger": "event",
        "started_at": NOON + timedelta(hours=hours),
        "duration_ms": 1,
        "succeeded": succeeded,
        "response": "",
    }


@pytest.mark.parametrize(
    ("attempts", "enabled_at", "since"),
    [
        ([], 0.0, None),
        ([attempt(2, succeeded=False), attempt(1, succeeded=False)], 0.0, 1.0),
        ([attempt(1, succeeded=False), attempt(2, succeeded=True), attempt(3, succeeded=False)], 0.0, 3.0),
        ([attempt(1, succeeded=False), attempt(2, succeeded=True)], 0.0, None),
        ([attempt(1, succeeded=False), attempt(3, succeeded=False)], 2.0, 3.0),
        ([attempt(1, succeeded=False, endpoint=uuid4())], 0.0, None),
    ],
)
async def test_the_first_failure_after_the_last_success_counts(
    database_url: str, attempts: list[dict[str, object]], enabled_at: float, since: float | None
) -> None:
    endpoint = WebhookEndpoint(
        id=EndpointId(ENDPOINT),
        url="https://example.com/",
        secrets=[],
        after=0,
        enabled_at=NOON + timedelta(hours=enabled_at),
        created_at=NOON,
        updated_at=NOON,
    )
    engine = create_async_engine(database_url)
    try:
        async with engine.begin() as connection:
            if attempts:
                await connection.execute(insert(tables.WebhookAttempt), attempts)
        found = await Failures(Reader(engine)).since(endpoint)
    finally:
        await engine.dispose()
    assert found == (None if since is None else NOON + timedelta(hours=since))
