"""The servers and services that are measured, in a temporary folder and on free ports."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import asyncpg
import httpx

from dev.bench.cpu_time import Meter
from dev.bench.errors import BenchError
from dev.bench.load import Load
from dev.local_stack.ports import free_port
from dev.local_stack.processes import Child, Command, run_to_end
from dev.local_stack.readiness import Probe, answers_http, until_ready
from dev.local_stack.servers import HOST, NatsServer, PostgresServer
from shared.bus.client import Bus, connect
from shared.bus.publisher import Outgoing, publishing
from shared.bus.topology import Stream, outbound_subject
from shared.events import Event
from shared.message import DeliveryRequest

_ROOT = Path(__file__).resolve().parents[2]
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_TIMEOUT = 120
_CHUNK = 1_000
_SERVICES = ("gateway", "ingest", "sender")
_MODULES = {
    "gateway": "services.gateway",
    "ingest": "services.ingest",
    "sender": "services.sender",
    "notifier": "services.notifier",
    "provider": "dev.bench.provider",
    "bare": "dev.bench.bare_endpoint",
}
_READY = {"provider": "/stats"}


class Stack:
    """The servers, which run all the time, and the services, which run when a measurement needs them.

    The processes of a service have the names `sender`, `sender-2`, `sender-3` and so on.

    Attributes:
        folder: the folder for files of the measurements.
        http: a client for requests that are not measured.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        nats: NatsServer,
        bus: Bus,
        http: httpx.AsyncClient,
        settings: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.bus = bus
        self.http = http
        self.postgres = postgres
        self.nats = nats
        self._children: dict[str, Child] = {}
        self._ports: dict[str, int] = {}
        self._environment = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "PYTHONPATH": str(_ROOT),
            "DATABASE_URL": postgres.url.replace("postgresql://", "postgresql+asyncpg://", 1),
            "NATS_URL": nats.url,
            "GATEWAY_PORT": str(self.port("gateway")),
            "SMS_PROVIDER_URL": self.url("provider"),
            "EMAIL_PROVIDER_URL": self.url("provider"),
            "GATEWAY_HEALTH_PORT": str(self.port("gateway-health")),
            **settings,
        }

    def port(self, name: str) -> int:
        if name not in self._ports:
            self._ports[name] = free_port(self._ports.values())
        return self._ports[name]

    def url(self, name: str, path: str = "") -> str:
        return f"http://{HOST}:{self.port(name)}{path}"

    def pids(self, service: str) -> list[int]:
        return [child.pid for name, child in self._children.items() if name.partition("-")[0] == service]

    def meter(self, *services: str) -> Meter:
        """Measure the CPU time of the servers and of these services, or of all of them, from now on."""
        return Meter(
            {
                "nats-server": [self.nats.pid],
                "PostgreSQL": [self.postgres.pid],
                **{service: self.pids(service) for service in services or _SERVICES},
            }
        )

    async def start(self, *names: str) -> None:
        """Start the named processes unless they are running, and wait until they are ready."""
        await asyncio.gather(*(self._start(name) for name in names if name not in self._children))

    async def stop(self, *names: str) -> None:
        await asyncio.gather(*(self._children.pop(name).stop() for name in names if name in self._children))

    async def stop_all(self) -> None:
        await self.stop(*self._children)

    async def run(self, *module: str, **variables: str) -> str:
        """Run a program of the project to its end, and return the last line of its output.

        Raises:
            BenchError: the program failed.
        """
        command = self._command(module[0], (sys.executable, "-m", *module), _ROOT, variables=variables)
        status, lines = await run_to_end(command, lambda _: None)
        if status != 0:
            raise BenchError("\n".join([f"{' '.join(module)} ended with status {status}", *lines]))
        return lines[-1] if lines else ""

    async def start_program(self, name: str, argv: tuple[str, ...], ready: Probe) -> None:
        """Start another program, and wait until it is ready."""
        log = self.folder / f"{name}.log"
        self._children[name] = child = Child(self._command(name, argv, self.folder, log=log))
        await until_ready(child, ready, _TIMEOUT)

    async def load(
        self, kind: str, count: int, rate: float | None = None, *, port: int | None = None
    ) -> Load:
        """Make `count` requests; see `dev.bench.load`.

        Raises:
            BenchError: some requests were refused.
        """
        port = port or self.port("bare" if kind == "bare" else "gateway")
        arguments = [kind, str(port), str(count), *([str(rate)] if rate else [])]
        load = Load(**json.loads(await self.run("dev.bench.load", *arguments)))
        if load.refused:
            raise BenchError(f"{kind}: {load.refused} of {load.requests} requests were refused")
        return load

    async def set_latency(self, milliseconds: int) -> None:
        """Set the latency of the provider, and reset its counts."""
        (await self.http.put(self.url("provider", f"/latency/{milliseconds}"))).raise_for_status()

    async def fill(self, events: Iterable[Event[DeliveryRequest]]) -> None:
        """Publish the events as the gateway would."""
        await publish_all(self.bus, Stream.OUTBOUND, map(_outgoing, events))

    async def empty(self) -> None:
        """Purge the streams; the services may be running."""
        for stream in (Stream.OUTBOUND, Stream.INBOUND, Stream.EVENTS):
            await self.bus.jetstream.purge_stream(stream)

    async def query(self, statement: str) -> int:
        """Return the number that an SQL query selects."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return int(await connection.fetchval(statement))
        finally:
            await connection.close()

    async def _start(self, name: str) -> None:
        service = name.partition("-")[0]
        arguments = [str(self.port(name))] if service in {"bare", "provider"} else []
        probe = partial(answers_http, self.url(name, _READY.get(service, "/readyz")))
        await self.start_program(name, (sys.executable, "-m", _MODULES[service], *arguments), probe)

    def _command(
        self,
        name: str,
        argv: Sequence[str],
        folder: Path,
        *,
        log: Path | None = None,
        variables: dict[str, str] | None = None,
    ) -> Command:
        port = {"HEALTH_PORT": str(self.port(name))} if name.partition("-")[0] in _MODULES else {}
        environment = {**self._environment, **port, **(variables or {})}
        return Command(name=name, argv=tuple(argv), environment=environment, folder=folder, log=log)


async def publish_all(bus: Bus, stream: str, messages: Iterable[Outgoing]) -> None:
    """Publish any number of messages, in portions that do not have to wait for too long."""
    messages = iter(messages)
    async with publishing(bus) as publisher:
        while chunk := list(islice(messages, _CHUNK)):
            await asyncio.gather(*(publisher.publish(stream, outgoing) for outgoing in chunk))


def _outgoing(event: Event[DeliveryRequest]) -> Outgoing:
    message = event.data.message
    return Outgoing(outbound_subject(message.channel, message.conversation_key), event.id, event.encode())


@asynccontextmanager
async def running_stack(folder: Path, **settings: str) -> AsyncIterator[Stack]:
    """Run the servers for the block: migrated, provisioned, and as durable as those of `make run`.

    Args:
        folder: the folder for the data and the logs.
        settings: further settings of the services.
    """
    postgres = PostgresServer(folder / "postgres", free_port(), log=folder / "postgres.log")
    nats = NatsServer(folder / "nats", free_port({postgres.port}), log=folder / "nats.log")
    async with AsyncExitStack() as exits:
        for server in (postgres, nats):
            exits.push_async_callback(server.kill)  # its data is no longer needed
            await server.start()
        bus = await exits.enter_async_context(connect(nats.url, name="dev.bench"))
        await asyncio.wait_for(bus.until_connected(), _TIMEOUT)
        http = await exits.enter_async_context(httpx.AsyncClient(timeout=30, trust_env=False))
        stack = Stack(folder, postgres, nats, bus, http, settings)
        exits.push_async_callback(stack.stop_all)
        await stack.run("alembic", "upgrade", "head")
        await stack.run("shared.bus.provision")
        await stack.start("provider")
        yield stack


async def server_versions(stack: Stack) -> list[str]:
    version = await stack.query("SHOW server_version_num") // 10_000
    nats = str(stack.bus.client.connected_server_version).strip("<>").rpartition("v")[2]
    return [f"nats-server {nats}", f"PostgreSQL {version}"]
