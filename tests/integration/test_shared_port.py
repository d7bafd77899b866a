"""Several processes of a service on one machine share a port, and each also has its own port."""

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from dev.local_stack.processes import Child, Command, run_to_end
from dev.local_stack.readiness import answers_http, until_ready
from tests.ports import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
SERVICE = """
import os, sys
from fastapi import FastAPI
from shared.service import serve

app = FastAPI()
app.get("/pid")(lambda: os.getpid())
port, *own_port = map(int, sys.argv[1:])
own = ("127.0.0.1", own_port[0] if own_port else 0)
serve(app, host="127.0.0.1", port=port, own=own, program="service")
"""


def command(*ports: int, log: Path | None = None) -> Command:
    argv = (sys.executable, "-c", SERVICE, *map(str, ports))
    return Command(name="service", argv=argv, environment={"PYTHONPATH": str(ROOT)}, folder=ROOT, log=log)


async def started(port: int, own_port: int, log: Path) -> Child:
    child = Child(command(port, own_port, log=log))
    await until_ready(child, partial(answers_http, f"http://{HOST}:{own_port}/pid"), 30)
    return child


@pytest.fixture
def ports() -> list[int]:
    return [free_port() for _ in range(3)]


@pytest.fixture
async def services(ports: list[int], tmp_path: Path) -> AsyncIterator[list[Child]]:
    shared, *own = ports
    async with AsyncExitStack() as exits:
        children = []
        for port in own:
            children.append(await started(shared, port, tmp_path / "log"))
            exits.push_async_callback(children[-1].kill)
        yield children


async def pids_at(port: int, requests: Iterable[int] = range(64)) -> set[int]:
    """Return the processes that answer the requests, each of which uses a new connection."""
    pids = set()
    for _ in requests:
        async with httpx.AsyncClient(trust_env=False) as client:
            pids.add(int((await client.get(f"http://{HOST}:{port}/pid")).text))
    return pids


async def test_all_processes_answer_at_the_shared_port_and_one_at_each_own_port(
    services: list[Child], ports: list[int]
) -> None:
    shared, *own = ports
    assert await pids_at(shared) == {service.pid for service in services}
    for service, port in zip(services, own, strict=True):
        assert await pids_at(port) == {service.pid}


async def test_the_others_take_over_when_one_is_killed(services: list[Child], ports: list[int]) -> None:
    await services[0].kill()
    assert await pids_at(ports[0]) == {services[1].pid}


@pytest.mark.usefixtures("services")
async def test_a_process_without_an_own_port_does_not_share_the_port(ports: list[int]) -> None:
    status, lines = await run_to_end(command(ports[0]), lambda _: None)
    assert status == 1
    assert lines[-1].startswith(f"service: cannot listen on {HOST}:{ports[0]}: Address already in use")
