from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.settings import IngestSettings
from shared.db.engine import make_engine


@pytest.fixture
def settings(database_url: str) -> IngestSettings:
    return IngestSettings(database_url=database_url, nats_url="nats://127.0.0.1:1")


@pytest.fixture
async def engine(settings: IngestSettings) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(settings, pool_size=5, application="tests")
    yield engine
    await engine.dispose()
