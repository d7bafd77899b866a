"""Old attempts to deliver events to webhook endpoints are deleted."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.app import create_app
from services.ingest.attempt_retention import delete_old_attempts
from services.ingest.settings import IngestSettings
from shared.db.tables import WebhookAttempt
from tests.waiting import eventually

pytestmark = pytest.mark.integration

AGES = (31, 40, 90, 29, 1)
OLD = 3


@pytest.fixture
async def attempts(engine: AsyncEngine) -> None:
    """Insert attempts that are `AGES` days old."""
    rows = [
        {
            "id": uuid4(),
            "endpoint_id": uuid4(),
            "event_id": uuid4(),
            "event_type": "message.sent",
            "attempt": 1,
            "trigger": "event",
            "started_at": datetime.now(UTC) - timedelta(days=age),
            "duration_ms": 20,
            "succeeded": True,
            "response": "",
        }
        for age in AGES
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(WebhookAttempt), rows)


async def left(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(WebhookAttempt)) or 0


@pytest.mark.usefixtures("attempts")
async def test_attempts_are_deleted_in_batches_after_thirty_days(engine: AsyncEngine) -> None:
    assert await delete_old_attempts(engine, batch=2) == OLD
    assert await left(engine) == len(AGES) - OLD
    assert await delete_old_attempts(engine) == 0


@pytest.mark.usefixtures("attempts")
async def test_a_running_ingest_deletes_them(engine: AsyncEngine, nats_url: str, database_url: str) -> None:
    app = create_app(IngestSettings(nats_url=nats_url, database_url=database_url))

    async def are_deleted() -> bool:
        return await left(engine) == len(AGES) - OLD

    async with app.router.lifespan_context(app):
        await eventually(are_deleted)
