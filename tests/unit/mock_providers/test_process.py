"""`python -m mock_providers`, as a process."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def started(
    folder: Path, *channels: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the process in a folder without a `.env`, on free ports by default."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mock_providers",
        *channels,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SMS_PROVIDER_PORT": "0",
            "EMAIL_PROVIDER_PORT": "0",
            **environment,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def urls(process: asyncio.subprocess.Process) -> list[str]:
    """Return the addresses in the log, that of the SMS provider first."""
    assert process.stderr
    lines = [(await process.stderr.readline()).decode() for _ in range(2)]
    return [match[0] for line in lines if (match := re.search(r"http://\S+", line))]


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield str(taken.getsockname()[1])


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_both_channels_start_and_stop(tmp_path: Path, sig: signal.Signals) -> None:
    async with started(tmp_path) as process, httpx.AsyncClient(trust_env=False) as client:
        sms, email = await urls(process)
        for url in (sms, email):
            assert (await client.get(f"{url}/healthz")).json() == {"status": "ok"}
        titles = [(await client.get(f"{url}/openapi.json")).json()["info"]["title"] for url in (sms, email)]
        assert titles == ["Mock SMS/MMS provider", "Mock e-mail provider"]
        process.send_signal(sig)
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


@pytest.mark.parametrize("behaviour", [{"hang": True}, {"latency_ms": 600_000}])
async def test_open_requests_do_not_delay_the_shutdown(tmp_path: Path, behaviour: dict[str, object]) -> None:
    message = {
        "from": "a@example.com",
        "to": "b@example.com",
        "body": "",
        "timestamp": "2026-03-01T08:00:00Z",
    }
    async with started(tmp_path) as process, httpx.AsyncClient(trust_env=False, timeout=30) as client:
        _, email = await urls(process)
        await client.put(f"{email}/mock/behaviour", json=behaviour)
        open_request = asyncio.create_task(client.post(f"{email}/messages", json=message))
        while (await client.get(f"{email}/mock/stats")).json()["requests"] == 0:
            pass
        process.terminate()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await open_request
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_running_reports_do_not_delay_the_shutdown(tmp_path: Path) -> None:
    mail = {
        "personalizations": [{"to": [{"email": "b@example.com"}]}],
        "from": {"email": "a@example.com"},
        "subject": "x",
        "content": [{"type": "text/plain", "value": "x"}],
    }
    settings = {
        "GATEWAY_URL": "http://127.0.0.1:1",
        "SENDGRID_API_KEY": "SG.other",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "other",
    }
    async with started(tmp_path, **settings) as process, httpx.AsyncClient(trust_env=False) as client:
        sms, email = await urls(process)
        account = f"{sms}/2010-04-01/Accounts/AC1/Messages.json"
        assert (await client.get(account, auth=("AC1", "other"))).status_code == 200
        sent = await client.post(
            f"{email}/v3/mail/send", json=mail, headers={"Authorization": "Bearer SG.other"}
        )
        assert sent.status_code == 202
        assert process.stderr
        line = (await process.stderr.readline()).decode()
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} info     events_not_accepted  no connection.*\n", line)
        process.terminate()
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_a_dotenv_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WEBHOOK_SECRET=invalid\n")
    async with started(tmp_path) as process:
        assert len(await urls(process)) == 2


async def test_a_single_channel_can_be_served(tmp_path: Path) -> None:
    async with started(tmp_path, "email", SMS_PROVIDER_PORT="1") as process:
        assert process.stderr
        line = (await process.stderr.readline()).decode()
        assert "Mock e-mail provider" in line
        process.terminate()
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_the_controls_need_the_token_if_there_is_one(tmp_path: Path) -> None:
    environment = {"MOCK_TOKEN": "open sesame", "GATEWAY_URL": "http://127.0.0.1:1/"}
    async with started(tmp_path, **environment) as process, httpx.AsyncClient(trust_env=False) as client:
        sms, _ = await urls(process)
        assert (await client.get(f"{sms}/healthz")).status_code == 200
        for token, status in (("", 401), ("Bearer open", 401), ("Bearer open sesame", 502)):
            response = await client.post(f"{sms}/mock/inbound", headers={"Authorization": token})
            assert response.status_code == status


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"WEBHOOK_SECRET": "hush"}, r"WEBHOOK_SECRET: .*must be whsec_ followed by base64"),
        ({"SMS_PROVIDER_PORT": "many"}, r"SMS_PROVIDER_PORT: .*"),
        ({"GATEWAY_URL": "gateway"}, r"GATEWAY_URL: .*"),
        ({"GATEWAY_PUBLIC_URL": "gateway"}, r"GATEWAY_PUBLIC_URL: .*"),
        ({"SENDGRID_WEBHOOK_PRIVATE_KEY": "hush"}, r"SENDGRID_WEBHOOK_PRIVATE_KEY: .*must be a P-256 .*"),
        ({"LOG_LEVEL": "chatty"}, r"LOG_LEVEL: .*must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ({"MOCK_PROVIDERS_HOST": "host.invalid"}, r"cannot listen on host\.invalid:0: .*"),
    ],
)
async def test_invalid_settings(tmp_path: Path, environment: dict[str, str], complaint: str) -> None:
    async with started(tmp_path, **environment) as process:
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert re.fullmatch(f"mock_providers: {complaint}\n", stderr.decode())
    assert b"hush" not in stderr


@pytest.mark.parametrize("variable", ["SMS_PROVIDER_PORT", "EMAIL_PROVIDER_PORT"])
async def test_a_port_in_use(tmp_path: Path, taken_port: str, variable: str) -> None:
    async with started(tmp_path, **{variable: taken_port}) as process:
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert re.fullmatch(
        rf"mock_providers: cannot listen on 127\.0\.0\.1:{taken_port}: Address already in use.*\n",
        stderr.decode(),
    )
