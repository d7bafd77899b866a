"""What `make run` says when it cannot run."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.local_stack import external
from dev.local_stack.__main__ import run
from dev.local_stack.data_folder import locked
from dev.local_stack.errors import StackError
from dev.local_stack.session import reporting_errors
from tests import infrastructure
from tests.ports import free_port

pytestmark = pytest.mark.integration

OURS = (
    "DATABASE_URL",
    "NATS_URL",
    "DATA_DIR",
    "SMS_PROVIDER_URL",
    "EMAIL_PROVIDER_URL",
    "SENDERS",
    "INGESTS",
)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable in OURS or variable.endswith("_PORT"):
            monkeypatch.delenv(variable)
    monkeypatch.setattr(external, "_PATIENCE", 0)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def said(root: Path, capfd: pytest.CaptureFixture[str], **settings: str | int) -> list[str]:
    """Run with these settings, which must fail; gives what was said about it."""
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (root / ".env").write_text("".join(lines))
    assert reporting_errors(lambda: run(root)) == 1
    output = capfd.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def test_one_server_of_two(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert said(tmp_path, capfd, DATABASE_URL="postgresql://x") == [
        "run: DATABASE_URL is set but NATS_URL is not: set both, or neither, in the environment or .env"
    ]


def test_ports_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str], taken: int) -> None:
    lines = said(tmp_path, capfd, GATEWAY_PORT=taken, NATS_PORT=taken, POSTGRES_PORT=free_port())
    assert f"run: port {taken} is in use: end what listens there, or set NATS_PORT to another" in lines
    assert f"run: port {taken} is asked for twice: NATS_PORT and GATEWAY_PORT" in lines


def test_a_folder_that_is_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / ".data"):
        (line,) = said(tmp_path, capfd)
    assert line == f"run: process {os.getpid()} is running already, with {tmp_path / '.data'}"


def test_a_folder_that_cannot_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (line,) = said(tmp_path, capfd, DATA_DIR="file/data")
    assert line.endswith("set DATA_DIR to a folder of your own")


def providers() -> dict[str, str | int]:
    return {
        "SMS_PROVIDER_URL": "http://sms.example",
        "EMAIL_PROVIDER_URL": "http://email.example",
        "GATEWAY_PORT": free_port(),
    }


def test_a_database_that_does_not_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    url = f"postgresql+asyncpg://someone:hunter2@127.0.0.1:{port}/messages"
    (line,) = said(tmp_path, capfd, DATABASE_URL=url, NATS_URL="nats://127.0.0.1:1", **providers())
    assert line.startswith(f"run: PostgreSQL at 127.0.0.1:{port} (DATABASE_URL) does not answer: ")
    assert "hunter2" not in line


async def test_a_broker_that_does_not_answer() -> None:
    port = free_port()
    with pytest.raises(
        StackError, match=rf"^NATS at 127.0.0.1:{port} \(NATS_URL\) does not answer: "
    ) as raised:
        await external.check_broker(f"nats://someone:hunter2@127.0.0.1:{port}")
    assert "hunter2" not in str(raised.value)


async def test_servers_that_answer(tmp_path: Path) -> None:
    async with infrastructure.postgres(tmp_path) as database, infrastructure.nats(tmp_path) as broker:
        await external.check_database(database.admin_url)
        await external.check_broker(f"nats://127.0.0.1:1, {broker.url}")


async def test_a_password_that_is_wrong(tmp_path: Path) -> None:
    async with infrastructure.postgres(tmp_path) as database:
        url = database.admin_url.replace("messaging_password", "hunter2")
        with pytest.raises(StackError, match="password authentication failed") as raised:
            await external.check_database(url)
    assert "hunter2" not in str(raised.value)
