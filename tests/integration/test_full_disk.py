"""A NATS whose disk was full stores nothing until it is restarted. The services notice that."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from dev.local_stack.programs import Program, Stage
from dev.local_stack.readiness import count_streams
from dev.local_stack.servers import NatsServer
from dev.local_stack.supervisor import Keeper
from shared.bus.client import connect
from shared.bus.probe import BucketProbe
from shared.bus.provision import provision
from shared.bus.publisher import Outgoing, Publisher, publishing
from shared.bus.topology import LIMITS_BUCKET, Stream
from shared.errors import BusUnavailableError
from tests import messages
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.integration

HEALTH_CHECK = Path(__file__).parents[2] / "deploy" / "nats" / "health.sh"

NETCAT = f"""#!{sys.executable}
import socket, sys
connection = socket.create_connection((sys.argv[-2], int(sys.argv[-1])))
connection.sendall(sys.stdin.buffer.read())
while part := connection.recv(4096):
    sys.stdout.buffer.write(part)
"""
"""The image has a real one."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4_096))
    return filler


async def can_publish(publisher: Publisher) -> bool:
    event = messages.accepted()
    subject = "outbound.sms.transactional.0.00"
    try:
        await publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))
    except BusUnavailableError:
        return False
    return True


class Lines:
    """The output of the program, which is not shown."""

    def __init__(self) -> None:
        self.lines = list[str]()

    def line(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None:
        pass


@asynccontextmanager
async def kept(server: NatsServer) -> AsyncIterator[tuple[Keeper, list[str]]]:
    """Keep a server running as `make run` does; yield the lines about it, too."""
    await server.prepare()
    lines = Lines()
    program = Program(
        command=server.command(),
        ready=server.answers,
        stage=Stage.BROKER,
        prepare=server.prepare,
        broken=server.broken,
    )
    keeper = Keeper(program, lines, lambda: None)  # type: ignore[arg-type]
    await keeper.start()
    try:
        yield keeper, lines.lines
    finally:
        await keeper.stop()


async def test_a_server_is_restarted_after_its_disk_was_full(disk: Path, tmp_path: Path) -> None:
    server = NatsServer(disk / "nats", free_port(), log=tmp_path / "log")
    async with (
        kept(server) as (_, lines),
        connect(server.url, name="test") as bus,
        publishing(bus) as publisher,
    ):
        await bus.until_connected()
        await provision(bus.jetstream)
        probe = BucketProbe(bus, publisher, LIMITS_BUCKET)
        probing = asyncio.create_task(probe.run())

        async def is_ready() -> bool:
            return probe.unready_reason is None

        async def is_unready() -> bool:
            return probe.unready_reason is not None

        await eventually(is_ready)
        filler = fill(disk)
        assert not await can_publish(publisher)
        await eventually(is_unready)
        assert lines == []  # a restart would not help
        filler.unlink()
        await eventually(is_ready, within=60)
        assert await can_publish(publisher)
        assert any("is broken" in line for line in lines)
        probing.cancel()


async def test_no_stream_is_missing_after_a_restart_while_the_disk_was_full(
    disk: Path, tmp_path: Path
) -> None:
    server = NatsServer(disk / "nats", free_port(), log=tmp_path / "log")
    async with (
        kept(server) as (keeper, _),
        connect(server.url, name="test") as bus,
        publishing(bus) as publisher,
    ):
        await bus.until_connected()
        await provision(bus.jetstream)
        streams = await count_streams(server.url)
        filler = fill(disk)
        assert not await can_publish(publisher)
        keeper.kill()
        await bus.until_lost()
        await bus.until_connected()
        filler.unlink()
        await eventually(lambda: can_publish(publisher), within=60)
        assert await count_streams(server.url) == streams


async def test_the_health_check_of_the_container_ends_a_server_after_its_disk_was_full(
    disk: Path, tmp_path: Path
) -> None:
    server = NatsServer(disk / "nats", free_port(), log=tmp_path / "log")
    await server.start()
    (tmp_path / "nc").write_text(NETCAT)
    (tmp_path / "nc").chmod(0o700)

    async def health() -> int:
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "NATS_MONITORING_PORT": str(server._monitoring_port),  # noqa: SLF001
            "NATS_STORE_DIR": str(disk),
            "NATS_PID": str(server.pid),
            "NATS_ROOM": "4096",
        }
        process = await asyncio.create_subprocess_exec("sh", str(HEALTH_CHECK), env=environment)
        return await process.wait()

    async with connect(server.url, name="test") as bus, publishing(bus) as publisher:
        await bus.until_connected()
        await provision(bus.jetstream)
        assert await health() == 0
        filler = fill(disk)
        assert not await can_publish(publisher)
        assert await health() == 1
        await server.answers()
        filler.unlink()
        assert await health() == 1

        async def has_ended() -> bool:
            return not bus.is_connected

        await eventually(has_ended)
    await server.kill()
