"""The messages of `make run` when it cannot run, and of the commands that look at a running stack."""

import os
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest

from dev.local_stack import external
from dev.local_stack.__main__ import run
from dev.local_stack.configuration import configure
from dev.local_stack.data_folder import locked
from dev.local_stack.errors import StackError
from dev.local_stack.session import reporting_errors
from dev.local_stack.settings_check import known_variables
from dev.local_stack.state import ProcessState, State, StateFile
from dev.local_stack.status import show_status
from tests import infrastructure
from tests.ports import free_port

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in known_variables():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(external, "_TIMEOUT", 0)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def fails(root: Path, capfd: pytest.CaptureFixture[str], **settings: str | int) -> list[str]:
    """Run with these settings, which must fail; return the messages."""
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (root / ".env").write_text("".join(lines))
    assert reporting_errors(lambda: run(root)) == 1
    output = capfd.readouterr()
    assert "Everything is up." not in output.out
    return output.err.splitlines()


def test_all_faults_of_the_settings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fails(tmp_path, capfd, SENDRES=3, GATEWAY_PORT="http", BREAKER_FAILURES=0) == [
        "run: SENDRES in .env is not a known setting; did you mean SENDERS?",
        "run: GATEWAY_PORT: must be a valid integer, not 'http'",
        "run: BREAKER_FAILURES: must be greater than or equal to 1, not '0'",
    ]


def test_ports_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str], taken: int) -> None:
    lines = fails(tmp_path, capfd, GATEWAY_PORT=taken, NATS_PORT=taken, POSTGRES_PORT=free_port())
    assert any(
        line.startswith(f"run: port {taken} is in use: stop the process that uses it (pid {os.getpid()}, ")
        and line.endswith("), or set NATS_PORT to another port")
        for line in lines
    )
    assert f"run: port {taken} is chosen twice: NATS_PORT and GATEWAY_PORT" in lines


def test_a_folder_that_is_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / ".data"):
        (line,) = fails(tmp_path, capfd)
    assert line == f"run: process {os.getpid()} is running with the data in {tmp_path / '.data'}"


def test_a_folder_that_cannot_be_created(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (line,) = fails(tmp_path, capfd, DATA_DIR="file/data")
    assert line.endswith("set DATA_DIR to a folder that you can write to")


def providers() -> dict[str, str | int]:
    return {
        "SMS_PROVIDER_URL": "http://sms.example",
        "EMAIL_PROVIDER_URL": "http://email.example",
        "GATEWAY_PORT": free_port(),
        "GATEWAY_HEALTH_PORT": free_port(),
        "INGEST_HEALTH_PORT": free_port(),
        "SENDER_HEALTH_PORT": free_port(),
        "NOTIFIER_HEALTH_PORT": free_port(),
    }


def test_a_database_that_does_not_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    url = f"postgresql+asyncpg://someone:hunter2@127.0.0.1:{port}/messages"
    (line,) = fails(tmp_path, capfd, DATABASE_URL=url, NATS_URL="nats://127.0.0.1:1", **providers())
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


async def test_the_status_of_a_running_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = configure({}, tmp_path)
    async with infrastructure.postgres(tmp_path) as database, infrastructure.nats(tmp_path) as broker:
        client = await nats.connect(broker.url)
        await client.jetstream().add_stream(name="WORK", subjects=["work"])
        for number in (1, 2):
            await client.jetstream().add_consumer("WORK", durable_name=f"worker-{number}")
        await client.jetstream().publish("work", b"")
        await client.close()
        state = State(
            pid=os.getpid(),
            since=datetime.now(UTC),
            owns_servers=False,
            database_url=database.admin_url,
            nats_url=broker.url,
            gateway_url="http://127.0.0.1:1",
            processes=[
                ProcessState(
                    name="gateway",
                    pid=1234,
                    address="http://127.0.0.1:1/readyz",
                    since=datetime.now(UTC),
                    restarts=2,
                )
            ],
        )
        with locked(configuration.data_folder):
            StateFile(configuration.data_folder).write(state)
            assert await show_status(configuration) == 1
    output = capsys.readouterr().out
    assert re.search(rf"(?m)^Running for 0 s \(pid {os.getpid()}\)", output)
    assert re.search(r"(?m)^  postgres  -     -            \S+:\d+ +ready$", output)
    assert re.search(r"(?m)^  nats      -     -            \S+:\d+ +ready$", output)
    assert re.search(
        r"(?m)^  gateway   1234  0 s          http://127.0.0.1:1 +not ready: .*, restarts: 2$", output
    )
    assert re.search(r"(?m)^  WORK    worker    2        0$", output)
    assert "messaging_password" not in output


async def test_the_status_when_nothing_is_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await show_status(configure({}, tmp_path)) == 1
    assert capsys.readouterr().out == (
        f"Nothing is running. {tmp_path / '.data'} is empty. Start with: make run\n"
    )
