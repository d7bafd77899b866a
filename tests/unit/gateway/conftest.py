from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> GatewaySettings:
    for name in (
        "API_KEYS",
        "WEBHOOK_SECRET",
        "TWILIO_AUTH_TOKEN",
        "SENDGRID_WEBHOOK_PUBLIC_KEY",
        "GATEWAY_HOST",
        "ALLOW_UNAUTHENTICATED",
    ):
        monkeypatch.delenv(name, raising=False)
    return GatewaySettings(
        _env_file=None,
        nats_url="nats://unused",
        database_url="postgresql+asyncpg://unused",
    )


@pytest.fixture
def app(settings: GatewaySettings) -> FastAPI:
    """The gateway with nothing behind it: a request that got past the checks would end in a 500."""
    app = create_app(settings)
    app.state.gateway = SimpleNamespace(default_region="US")
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client
