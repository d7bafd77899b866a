"""The gateway as a process."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
NOWHERE = {"NATS_URL": "nats://127.0.0.1:1", "DATABASE_URL": "postgresql+asyncpg://u:p@127.0.0.1:1/d"}


@asynccontextmanager
async def gateway_process(folder: Path, **variables: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.gateway",
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_starts_without_its_servers_and_stops_on_a_signal(tmp_path: Path) -> None:
    port = free_port()
    secrets = {"API_KEYS": "shop:topsecret-topsecret", "WEBHOOK_SECRET": "whsec_dG9wc2VjcmV0dG9wc2VjcmV0"}
    async with (
        gateway_process(tmp_path, **NOWHERE, **secrets, GATEWAY_PORT=str(port)) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):

        async def is_healthy() -> bool:
            try:
                return (await client.get("/healthz")).is_success
            except httpx.TransportError:
                return False

        await eventually(is_healthy)
        headers = {"authorization": "Bearer topsecret-topsecret"}
        response = await client.post("/api/messages/sms", json={}, headers=headers)
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()

    assert response.status_code == 422
    assert process.returncode in {0, -signal.SIGTERM}
    assert b"gateway_open" not in log
    assert b"webhooks_open" not in log
    assert b"topsecret" not in log
    assert b"dG9wc2VjcmV0" not in log


async def test_it_warns_that_it_is_open(tmp_path: Path) -> None:
    async with gateway_process(tmp_path, **NOWHERE, GATEWAY_PORT="0") as process:
        assert process.stderr is not None
        log = await process.stderr.readuntil(b"pose as a provider")

    assert log.count(b"gateway_open") == 1
    assert log.count(b"webhooks_open") == 1
    assert b"API_KEYS" in log
    assert b"WEBHOOK_SECRET" in log
    for provider in (b"generic_sms", b"generic_email", b"twilio", b"sendgrid"):
        assert provider in log


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        (
            {**NOWHERE, "GATEWAY_HOST": "0.0.0.0"},  # noqa: S104 - refused
            "ALLOW_UNAUTHENTICATED: must be true to listen on 0.0.0.0 without API_KEYS and WEBHOOK_SECRET",
        ),
        ({**NOWHERE, "API_KEYS": "topsecret"}, "API_KEYS: entry 1 is not name:key"),
        (
            {**NOWHERE, "SENDGRID_WEBHOOK_PUBLIC_KEY": "topsecret"},
            "SENDGRID_WEBHOOK_PUBLIC_KEY: must be a public key on the curve P-256, in base64",
        ),
        (
            {**NOWHERE, "TWILIO_AUTH_TOKEN": "topsecret-topsecret"},
            "PUBLIC_BASE_URL must be set along with TWILIO_AUTH_TOKEN: Twilio signs the URL",
        ),
        ({"NATS_URL": "nats://127.0.0.1:1"}, "DATABASE_URL is not set; see .env.example"),
    ],
)
async def test_invalid_settings_end_it_with_one_line(
    tmp_path: Path, variables: dict[str, str], complaint: str
) -> None:
    async with gateway_process(tmp_path, **variables) as process:
        _, log = await process.communicate()

    assert process.returncode == 1
    assert log.decode() == f"gateway: {complaint}\n"
