"""The servers that `make run` and the tests start."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import nats
import pytest

from dev.local_stack import privileges
from dev.local_stack.errors import StackError
from dev.local_stack.ports import is_free
from dev.local_stack.readiness import NotReadyError, until
from dev.local_stack.servers import LocalServer, NatsServer, PostgresServer
from tests.ports import free_port

pytestmark = pytest.mark.integration

KILLED_STARTER = """
import asyncio, os, signal, sys
from pathlib import Path
from dev.local_stack.servers import NatsServer, PostgresServer

async def main():
    folder, (first, second) = Path(sys.argv[1]), map(int, sys.argv[2:])
    await PostgresServer(folder / "postgres", first, log=folder / "log", durable=False).start()
    await NatsServer(folder / "nats", second, log=folder / "log").start()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def new_postgres(folder: Path) -> PostgresServer:
    return PostgresServer(
        folder / "postgres", free_port(), log=folder / "log" / "postgres.log", durable=False
    )


def new_nats(folder: Path) -> NatsServer:
    return NatsServer(folder / "nats", free_port(), log=folder / "log" / "nats.log", durable=False)


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    server = new_postgres(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = new_nats(tmp_path)
    await server.start()
    yield server
    await server.stop()


async def ask(server: PostgresServer, query: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("server_encoding", "UTF8"),
        ("timezone", "UTC"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
    ],
)
async def test_the_configuration_of_postgres(postgres: PostgresServer, setting: str, value: str) -> None:
    assert await ask(postgres, f"select current_setting('{setting}')") == value


async def test_case_conversion_covers_all_languages(postgres: PostgresServer) -> None:
    assert await ask(postgres, "select upper('straße é я')") == "STRASSE É Я".replace("SS", "ß")


async def test_postgres_requires_the_password(postgres: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url, password="wrong")


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_postgres_keeps_its_data(postgres: PostgresServer, way: str) -> None:
    await ask(postgres, "create table kept as select 42 as number")
    await getattr(postgres, way)()
    assert is_free(postgres.port)
    await postgres.start()
    assert await ask(postgres, "select number from kept") == 42


async def test_a_client_does_not_hold_up_the_shutdown(postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres.url)
    await postgres.stop()
    assert is_free(postgres.port)
    connection.terminate()


async def test_an_interrupted_initdb_is_repeated(tmp_path: Path) -> None:
    leftover = tmp_path / "postgres.unfinished"
    leftover.mkdir()
    (leftover / "PG_VERSION").write_text("18\n")
    server = new_postgres(tmp_path)
    await server.start()
    assert not leftover.exists()
    await server.stop()


async def test_data_of_another_version_is_not_touched(tmp_path: Path) -> None:
    server = new_postgres(tmp_path)
    server.folder.mkdir()
    (server.folder / "PG_VERSION").write_text("9\n")
    privileges.give_to_database_server(server.folder)
    with pytest.raises(
        StackError, match=r"created by PostgreSQL 9, and this is PostgreSQL \d+: move it away"
    ):
        await server.start()


async def test_data_of_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = new_postgres(tmp_path)
    server.folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(StackError, match=r"created by \w+: start as \w+, or set DATA_DIR to another folder"):
        await server.start()


async def test_nats_keeps_its_streams(broker: NatsServer) -> None:
    client = await nats.connect(broker.url)
    await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
    await client.jetstream().publish("kept", b"this")
    await client.close()
    await broker.kill()
    await broker.start()
    client = await nats.connect(broker.url)
    assert (await client.jetstream().get_last_msg("KEPT", "kept")).data == b"this"
    await client.close()


async def test_a_paused_nats_does_not_answer(broker: NatsServer) -> None:
    broker.pause()
    with pytest.raises(NotReadyError):
        await until(broker.answers, 0)
    broker.resume()
    await until(broker.answers, 30)


async def test_a_durable_nats_writes_every_message_to_the_disk(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / 'with "quotes" \\ and ü', free_port(), log=tmp_path / "log")
    await server.start()
    await server.stop()
    configuration = (server.folder / "nats-server.conf").read_text(encoding="utf-8")
    assert re.search(r"^\s*sync_interval: always$", configuration, re.MULTILINE)
    assert (server.folder / "jetstream").is_dir()


async def test_a_paused_server_can_be_stopped(broker: NatsServer) -> None:
    broker.pause()
    await broker.stop()
    assert is_free(broker.port)


@pytest.mark.parametrize("make", [new_postgres, new_nats])
async def test_a_port_in_use_is_named_with_its_variable(
    tmp_path: Path, make: Callable[[Path], LocalServer], broker: NatsServer
) -> None:
    server = make(tmp_path / "second")
    server.port = broker.port
    with pytest.raises(
        StackError, match=f"port {broker.port} is in use: .* set {server.variable} to another port"
    ):
        await server.start()


async def test_a_long_log_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    await NatsServer(tmp_path / "nats", free_port(), log=log).prepare()
    assert log.stat().st_size == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this signal")
def test_servers_do_not_outlive_a_starter_that_is_killed(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    starter = subprocess.run(
        [sys.executable, "-c", KILLED_STARTER, str(tmp_path), *map(str, ports)], check=False, timeout=60
    )
    assert starter.returncode == -signal.SIGKILL

    async def gone() -> None:
        if not all(map(is_free, ports)):
            raise NotReadyError("a server still listens")

    asyncio.run(until(gone, 30))
