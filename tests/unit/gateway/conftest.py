from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import NOW, calling, create_gateway, create_services

VARIABLES = (
    "API_KEYS",
    "WEBHOOK_SECRET",
    "TWILIO_AUTH_TOKEN",
    "SENDGRID_WEBHOOK_PUBLIC_KEY",
    "PUBLIC_BASE_URL",
    "UNSUBSCRIBE_SECRET",
    "GATEWAY_HOST",
    "ALLOW_UNAUTHENTICATED",
    "DEFAULT_REGION",
)


def remove_settings(environment: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        environment.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the environment."""
    remove_settings(monkeypatch)


@pytest.fixture
def server() -> JetStream:
    """Return the NATS of `app`."""
    return JetStream(lambda: NOW)


@pytest.fixture(scope="session")
def open_gateway() -> FastAPI:
    with pytest.MonkeyPatch.context() as environment:
        remove_settings(environment)
        return create_gateway()


@pytest.fixture
def app(open_gateway: FastAPI, server: JetStream) -> FastAPI:
    """Return a gateway that is open to anybody, with a NATS of its own."""
    open_gateway.state.services = create_services(server)
    return open_gateway


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app) as client:
        yield client
