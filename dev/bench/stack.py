"""The servers and services that are measured, in a temporary folder and on free ports."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import httpx

from dev.bench.errors import BenchError
from dev.local_stack.ports import free_port
from dev.local_stack.processes import Child, Command, run_to_end
from dev.local_stack.readiness import answers_http, until_ready
from dev.local_stack.servers import HOST, NatsServer, PostgresServer
from shared.bus.client import Bus, connect
from shared.bus.publisher import Outgoing, publishing
from shared.bus.topology import Stream, outbound_subject
from shared.events import Event
from shared.message import DeliveryRequest

_ROOT = Path(__file__).resolve().parents[2]
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_TIMEOUT = 30
_MODULES = {
    "gateway": "services.gateway",
    "ingest": "services.ingest",
    "sender": "services.sender",
    "mocks": "mock_providers",
    "bare": "dev.bench.bare_endpoint",
}
_READY = {"mocks": "/healthz"}


class Stack:
    """The servers, which run all the time, and the services, which run when a measurement needs them.

    Attributes:
        ports: the ports of the services, by name.
        http: a client for requests that are not measured.
    """

    def __init__(
        self, folder: Path, postgres: PostgresServer, nats: NatsServer, bus: Bus, http: httpx.AsyncClient
    ) -> None:
        self.bus = bus
        self.http = http
        self.postgres_url = postgres.url
        taken: set[int] = set()
        for _ in range(len(_MODULES) + 1):
            taken.add(free_port(taken))
        email_port, *others = taken
        self.ports = dict(zip(_MODULES, others, strict=True))
        self._folder = folder
        self._children: dict[str, Child] = {}
        self._environment = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "PYTHONPATH": str(_ROOT),
            "DATABASE_URL": postgres.url.replace("postgresql://", "postgresql+asyncpg://", 1),
            "NATS_URL": nats.url,
            "GATEWAY_PORT": str(self.ports["gateway"]),
            "GATEWAY_URL": self.url("gateway"),
            "SMS_PROVIDER_PORT": str(self.ports["mocks"]),
            "SMS_PROVIDER_URL": self.url("mocks"),
            "EMAIL_PROVIDER_PORT": str(email_port),
            "EMAIL_PROVIDER_URL": f"http://{HOST}:{email_port}",
        }

    def url(self, name: str, path: str = "") -> str:
        return f"http://{HOST}:{self.ports[name]}{path}"

    def pid(self, name: str) -> int:
        return self._children[name].pid

    async def start(self, *names: str) -> None:
        """Start the named services unless they are running, and wait until they are ready."""
        await asyncio.gather(*(self._start(name) for name in names if name not in self._children))

    async def stop(self, *names: str) -> None:
        await asyncio.gather(*(self._children.pop(name).stop() for name in names if name in self._children))

    async def stop_all(self) -> None:
        await self.stop(*self._children)

    async def run(self, *module: str) -> str:
        """Run a program of the project to its end, and return the last line of its output.

        Raises:
            BenchError: the program failed.
        """
        command = self._command(module[0], *module, folder=_ROOT)
        status, lines = await run_to_end(command, lambda _: None)
        if status != 0:
            raise BenchError("\n".join([f"{' '.join(module)} ended with status {status}", *lines]))
        return lines[-1] if lines else ""

    async def fill(self, events: list[Event[DeliveryRequest]]) -> None:
        """Publish the events as the gateway would."""
        async with publishing(self.bus) as publisher, asyncio.timeout(_TIMEOUT):
            await asyncio.gather(
                *(
                    publisher.publish(
                        Stream.OUTBOUND,
                        Outgoing(
                            outbound_subject(event.data.message.channel, event.data.message.conversation_key),
                            event.id,
                            event.encode(),
                        ),
                    )
                    for event in events
                )
            )

    async def left(self, stream: Stream, consumer: str) -> int:
        """Return the number of messages that the consumer has not acknowledged yet."""
        info = await self.bus.jetstream.consumer_info(stream, consumer)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def empty(self) -> None:
        """Purge the streams; the services may be running."""
        for stream in (Stream.OUTBOUND, Stream.INBOUND, Stream.EVENTS):
            await self.bus.jetstream.purge_stream(stream)

    async def _start(self, name: str) -> None:
        arguments = [str(self.ports[name])] if name == "bare" else []
        log = self._folder / f"{name}.log"
        command = self._command(name, _MODULES[name], *arguments, folder=self._folder, log=log)
        self._children[name] = child = Child(command)
        probe = partial(answers_http, self.url(name, _READY.get(name, "/readyz")))
        await until_ready(child, probe, _TIMEOUT)

    def _command(self, name: str, *module: str, folder: Path, log: Path | None = None) -> Command:
        port = {"HEALTH_PORT": str(self.ports[name])} if name in self.ports else {}
        return Command(
            name=name,
            argv=(sys.executable, "-m", *module),
            environment={**self._environment, **port},
            folder=folder,
            log=log,
        )


@asynccontextmanager
async def running_stack(folder: Path) -> AsyncIterator[Stack]:
    """Run the servers for the block: migrated, provisioned, and as durable as those of `make run`."""
    postgres = PostgresServer(folder / "postgres", free_port(), log=folder / "postgres.log")
    nats = NatsServer(folder / "nats", free_port({postgres.port}), log=folder / "nats.log")
    async with AsyncExitStack() as exits:
        for server in (postgres, nats):
            exits.push_async_callback(server.kill)  # its data is no longer needed
            await server.start()
        bus = await exits.enter_async_context(connect(nats.url, name="dev.bench"))
        await asyncio.wait_for(bus.until_connected(), _TIMEOUT)
        http = await exits.enter_async_context(httpx.AsyncClient(timeout=10, trust_env=False))
        stack = Stack(folder, postgres, nats, bus, http)
        exits.push_async_callback(stack.stop_all)
        await stack.run("alembic", "upgrade", "head")
        await stack.run("shared.bus.provision")
        yield stack


async def server_versions(stack: Stack) -> list[str]:
    connection = await asyncpg.connect(stack.postgres_url)
    try:
        postgres = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    nats = str(stack.bus.client.connected_server_version).strip("<>").rpartition("v")[2]
    return [f"nats-server {nats}", f"PostgreSQL {postgres}"]
