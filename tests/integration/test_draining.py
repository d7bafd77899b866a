"""After SIGTERM, a service with a drain time still answers, and reports that it is not ready."""

import asyncio
import sys
from functools import partial
from pathlib import Path
from signal import Signals

import httpx
import pytest

from dev.local_stack.processes import Child, Command
from dev.local_stack.readiness import answers_http, until_ready
from tests.ports import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SERVICE = """
import sys
from fastapi import FastAPI
from shared.service import health_router, serve

async def ready():
    return None

app = FastAPI()
app.include_router(health_router(ready))
port, drain_seconds = int(sys.argv[1]), float(sys.argv[2])
serve(app, host="127.0.0.1", port=port, program="service", drain_seconds=drain_seconds)
"""


async def started(port: int, drain_seconds: float, log: Path) -> Child:
    argv = (sys.executable, "-c", SERVICE, str(port), str(drain_seconds))
    command = Command(name="service", argv=argv, environment={"PYTHONPATH": str(ROOT)}, folder=ROOT, log=log)
    child = Child(command)
    await until_ready(child, partial(answers_http, f"http://127.0.0.1:{port}/readyz"), 30)
    return child


async def readiness(port: int) -> tuple[int, object]:
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://127.0.0.1:{port}/readyz")
    return response.status_code, response.json().get("reason")


async def test_it_answers_that_it_is_not_ready_until_a_second_signal(tmp_path: Path) -> None:
    port = free_port()
    child = await started(port, 3_600, tmp_path / "log")
    try:
        child.signal(Signals.SIGTERM)
        async with asyncio.timeout(10):
            while await readiness(port) != (503, "the process is stopping"):
                pass
        child.signal(Signals.SIGTERM)
        assert await child.wait() == -Signals.SIGTERM
    finally:
        await child.kill()


async def test_it_stops_when_the_time_is_over(tmp_path: Path) -> None:
    child = await started(free_port(), 0.5, tmp_path / "log")
    try:
        child.signal(Signals.SIGTERM)
        assert await child.wait() == -Signals.SIGTERM
    finally:
        await child.kill()
