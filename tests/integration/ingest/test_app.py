"""The service starts even if NATS or PostgreSQL is down, and reports that."""

import sys

import httpx
import pytest

from services.ingest.app import create_app
from services.ingest.settings import IngestSettings
from tests.integration.alembic_command import run
from tests.waiting import eventually

pytestmark = pytest.mark.integration

NO_DATABASE = "postgresql+asyncpg://u:p@127.0.0.1:1/none"


async def readiness(settings: IngestSettings, *, until: str) -> httpx.Response:
    """Run the service until the response of `/readyz` contains a text."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://ingest") as client,
    ):

        async def ask() -> httpx.Response | None:
            response = await client.get("/readyz")
            return response if until in response.text else None

        response = await eventually(ask)
        assert response is not None
        assert (await client.get("/healthz")).status_code == 200
        assert "messaging_persisted_total" in (await client.get("/metrics")).text
        return response


async def test_it_starts_without_nats_and_reports_that() -> None:
    settings = IngestSettings(nats_url="nats://127.0.0.1:1", database_url=NO_DATABASE)

    assert (await readiness(settings, until="NATS")).status_code == 503


async def test_it_starts_without_a_database_and_reports_that(nats_url: str) -> None:
    settings = IngestSettings(nats_url=nats_url, database_url=NO_DATABASE)

    assert (await readiness(settings, until="PostgreSQL")).status_code == 503


async def test_with_both_it_is_ready(nats_url: str, database_url: str) -> None:
    settings = IngestSettings(nats_url=nats_url, database_url=database_url)

    assert (await readiness(settings, until='"ready"')).status_code == 200


async def test_a_missing_setting_is_reported() -> None:
    result = await run(sys.executable, "-m", "services.ingest", database_url="")

    assert result.status == 1
    assert "ingest: DATABASE_URL is not set; see .env.example" in result.errors.splitlines()
