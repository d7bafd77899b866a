"""Notifiers as processes, which die and share their work."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from tests.documents import ROOT
from tests.integration.notifier.conftest import KEY, Harness, Start
from tests.ports import free_port
from tests.processes import Process

pytestmark = pytest.mark.integration


@pytest.fixture
def process(tmp_path: Path, nats_url: str, database_url: str) -> Callable[[], Process]:
    """Return a function that describes a notifier process."""

    def create() -> Process:
        port = free_port()
        environment = {
            "NATS_URL": nats_url,
            "DATABASE_URL": database_url,
            "WEBHOOK_ENDPOINT_KEY": KEY,
            "ALLOW_PRIVATE_WEBHOOKS": "true",
            "HEALTH_PORT": str(port),
        }
        url = f"http://127.0.0.1:{port}"
        return Process("services.notifier", url, environment, tmp_path / f"{port}.log", health_url=url)

    return create


async def test_an_event_survives_kill_9_between_the_request_and_its_record(
    harness: Harness, process: Callable[[], Process]
) -> None:
    first, second = process(), process()
    killed = asyncio.Event()

    async def respond(number: int) -> web.Response:
        if number == 1:  # the notifier is killed before it learns of the response
            await first.end(signal.SIGKILL)
            killed.set()
        return web.Response(status=204)

    harness.receiver.responses["app"] = respond
    endpoint = await harness.create("app")
    async with httpx.AsyncClient(trust_env=False) as client:
        first.start()
        await first.until_ready(client, "/readyz")
        event = await harness.publish()
        await killed.wait()
        second.start()
        try:
            received = await harness.receiver.until("app", 2)
            await harness.attempts(endpoint, 1)
        finally:
            await second.end()

    assert {each.id for each in received} == {str(event.id)}
    assert len({each.body for each in received}) == 1


async def test_two_notifiers_share_the_endpoints(harness: Harness, start_notifier: Start) -> None:
    names = [f"app-{number}" for number in range(8)]
    for name in names:
        await harness.create(name)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(start_notifier())
        await asyncio.gather(*(harness.publish() for _ in range(20)))
        for name in names:
            await harness.receiver.until(name, 20)
        # They have taken over from each other meanwhile, perhaps, but each event was sent once.
        await asyncio.gather(*(harness.publish() for _ in range(20)))
        for name in names:
            received = await harness.receiver.until(name, 40)
            assert len({each.id for each in received}) == len(received) == 40
    for name in names:  # nor is any sent again after they have stopped in order
        assert len(harness.receiver.received[name]) == 40
    async with start_notifier():
        event = await harness.publish()
        for name in names:
            received = await harness.receiver.until(name, 41)
            assert [each.id for each in received[40:]] == [str(event.id)]


async def test_without_a_key_it_does_not_start(tmp_path: Path) -> None:
    environment = {"NATS_URL": "nats://127.0.0.1:9", "DATABASE_URL": "postgresql+asyncpg://x/y"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.notifier"),
        cwd=tmp_path,  # away from any .env
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().splitlines() == ["notifier: WEBHOOK_ENDPOINT_KEY is not set; see .env.example"]
