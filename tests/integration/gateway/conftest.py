"""The gateway with a real PostgreSQL and NATS, called in this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.providers.registry import opt_out_groups
from tests.integration.gateway.rows import Rows
from tests.waiting import eventually
from tests.webhooks import verifiers

StartGateway = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@asynccontextmanager
async def _start_gateway(*, ready: bool = True, **values: Any) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ANN401
    groups = opt_out_groups(_env_file=None, **values)
    app = create_app(GatewaySettings(_env_file=None, **values), verifiers(**values), groups)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        if ready:
            await eventually(lambda: _is_ready(client))
        yield client


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).is_success


@pytest.fixture
def start_gateway() -> StartGateway:
    """Return a function that starts a gateway; with `ready=False` it does not wait for NATS."""
    return _start_gateway


@pytest.fixture
async def gateway(nats_url: str, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with _start_gateway(nats_url=nats_url, database_url=database_url) as client:
        yield client


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[Rows]:
    """Return the rows of the database of `gateway`."""
    engine = create_async_engine(database_url)
    yield Rows(engine)
    await engine.dispose()
