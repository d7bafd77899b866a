"""docker-compose.yml and bin/upgrade.sh, with a container engine.

Building and starting everything takes minutes, so these tests run only if TEST_COMPOSE is set.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.ports import free_port
from tests.waiting import eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("TEST_COMPOSE"), reason="TEST_COMPOSE is not set"),
]

ROOT = Path(__file__).parents[2]
PROFILES = ("--profile", "services", "--profile", "mocks")
PORTS = ("GATEWAY_PORT", "POSTGRES_PORT", "NATS_PORT", "SMS_PROVIDER_PORT", "EMAIL_PROVIDER_PORT")
SMS = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "Hello"}
TOKEN = {"Authorization": "Bearer mock_token"}


class Deployment:
    """The containers of a project of their own, on free ports."""

    def __init__(self) -> None:
        self.ports = {name: str(free_port()) for name in PORTS}
        counts = {"GATEWAYS": "2", "SENDERS": "2", "INGESTS": "1"}
        project = {"COMPOSE_PROJECT_NAME": f"test{uuid4().hex[:8]}"}
        self._environment = {**os.environ, **self.ports, **counts, **project}

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    async def run(self, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-3_000:]
        return output.decode()

    async def compose(self, *arguments: str) -> str:
        return await self.run("docker-compose", *PROFILES, *arguments)

    async def containers(self, service: str) -> set[str]:
        return set((await self.compose("ps", "--quiet", service)).split())


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    deployment = Deployment()
    try:
        await deployment.compose("up", "--detach", "--build")
        await eventually(partial(is_ready, deployment.url("GATEWAY_PORT")), within=120)
        yield deployment
    finally:
        await deployment.compose("down", "--volumes", "--timeout", "1")


async def is_ready(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"{url}/readyz")).is_success
        except httpx.TransportError:
            return False


async def send_until(stopped: asyncio.Event, url: str, answers: Counter[int]) -> None:
    """Send, receive and read messages, ten requests per second, half of them over new connections."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as reused:
        for number in count():
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as new:
                client = reused if number % 2 else new
                sent = await client.post("/api/messages/sms", json={**SMS, "body": f"Hello {number}"})
                answers[sent.status_code] += 1
                read = await client.get("/api/conversations")
                answers[read.status_code] += 1
            if stopped.is_set():
                return
            await asyncio.sleep(0.2)


async def test_an_upgrade_refuses_nothing_and_keeps_the_scale(deployment: Deployment) -> None:
    services = ("gateway", "ingest", "sender", "notifier")
    before = {service: await deployment.containers(service) for service in services}
    answers: Counter[int] = Counter()
    stopped = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(send_until(stopped, deployment.url("GATEWAY_PORT"), answers))
        await deployment.run("bin/upgrade.sh")
        stopped.set()

    assert set(answers) == {202, 200}
    assert answers[202] > 50
    for service, previous in before.items():
        now = await deployment.containers(service)
        assert len(now) == len(previous)
        assert not now & previous
    expected = {f"Hello {number}": 1 for number in range(answers[202])}

    async def all_sent() -> bool:
        return await accepted_bodies(deployment) == expected

    await eventually(all_sent, within=60)


async def accepted_bodies(deployment: Deployment) -> Counter[str]:
    """Count how often the mock provider has accepted each message."""
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"{deployment.url('SMS_PROVIDER_PORT')}/mock/messages", headers=TOKEN)
    return Counter(item["payload"]["body"] for item in response.raise_for_status().json()["items"])
