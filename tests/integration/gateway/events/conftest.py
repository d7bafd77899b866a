"""A gateway that listens, since the HTTP client cannot read a stream from an application in this process."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.bus.publisher import Publisher
from shared.events import Event
from shared.http_admission import Admission
from shared.http_server import config_of
from tests.notifications import notify
from tests.ports import free_port
from tests.waiting import eventually
from tests.webhooks import verifiers


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway at a port of 127.0.0.1, and what is needed to make something happen."""

    port: int
    app: FastAPI
    admission: Admission
    engine: AsyncEngine
    publisher: Publisher

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def notify(self, *events: Event[Any]) -> None:
        await notify(self.engine, self.publisher, events)


async def answers(port: int) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success


@pytest.fixture
async def listening(nats_url: str, database_url: str, publisher: Publisher) -> AsyncIterator[Gateway]:
    settings = GatewaySettings(_env_file=None, nats_url=nats_url, database_url=database_url)
    port, app = free_port(), create_app(settings, verifiers())
    admission = Admission(app)
    config = config_of(admission)
    config.host, config.port = "127.0.0.1", port
    server = uvicorn.Server(config)
    # The tests do not serve signals.
    serving = asyncio.create_task(server._serve())  # noqa: SLF001

    async def is_ready() -> bool:
        assert not serving.done()
        return server.started and await answers(port)

    await eventually(is_ready)
    engine = create_async_engine(database_url)
    yield Gateway(port, app, admission, engine, publisher)
    await engine.dispose()
    app.state.is_stopping = server.should_exit = True
    await serving
