"""The processes under test, which the project's own supervisor runs in a folder of their own.

The supervisor restarts processes that end. A fault finds the children of the supervisor by their command
lines, and signals them by their process ids.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil

from dev.chaos.errors import ChaosError
from dev.chaos.outside import ROOT, Outside
from dev.chaos.ports import Ports, free_ports
from dev.local_stack.ports import free_port
from dev.local_stack.processes import Child, Command, run_to_end
from dev.local_stack.readiness import (
    NotReadyError,
    Probe,
    answers_http,
    answers_jetstream,
    answers_sql,
    until,
    until_ready,
)
from dev.local_stack.servers import HOST, NatsServer, PostgresServer

GATEWAY = "gateway"
INGESTS = ("ingest-1", "ingest-2")
SENDERS = ("sender-1", "sender-2", "sender-3")
NOTIFIERS = ("notifier-1", "notifier-2")
NATS = "nats"
POSTGRES = "postgres"
SERVICES = (GATEWAY, *INGESTS, *SENDERS, *NOTIFIERS)
EVERYTHING = (*SERVICES, NATS, POSTGRES)

_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_SETTINGS = {
    "INGESTS": str(len(INGESTS)),
    "SENDERS": str(len(SENDERS)),
    "NOTIFIERS": str(len(NOTIFIERS)),
    "WEBHOOK_ENDPOINT_KEY": "a key of the faults",
    # The delays are short, so that a recovery is noticed soon, and many, so that an outage does not use up
    # the attempts of any message.
    "RETRY_DELAYS": ",".join(["0.5", "1", "1", "2", "2", "3", "3", *["5"] * 20]),
    "PROVIDER_TIMEOUT": "3",
    "BREAKER_PAUSE": "2",
    "LOG_LEVEL": "INFO",
}
_START_SECONDS = 120
_BACK_SECONDS = 60
_IS_UP = "Everything is up."


class Stack:
    """The running processes.

    Attributes:
        http: a client for requests that are not part of the load.
        disturbed: the programs that were ended; the supervisor waits longer before it restarts them again.
        servers: the URLs of NATS, separated by commas.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        child: Child,
        http: httpx.AsyncClient,
        outside: Outside | None,
        environment: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.http = http
        self.ports = ports
        self.disturbed: set[str] = set()
        self.servers = outside.cluster.url if outside else _nats(folder, ports.nats).url
        self.cluster = outside.cluster if outside else None
        self.gateway_url = f"http://{HOST}:{ports.gateway}"
        self.provider_urls = {"sms": f"http://{HOST}:{ports.sms}", "email": f"http://{HOST}:{ports.email}"}
        self.database_url = (outside.postgres if outside else _postgres(folder, ports.postgres)).url
        self._child = child
        self._environment = environment
        self._additional: list[Child] = []

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self._child.pid)

    def find(self, name: str) -> psutil.Process | None:
        """Return the process of a program, or None if the program is not running."""
        for process in self.supervisor.children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                if self._is(process, name):
                    return process
        return None

    def process(self, name: str) -> psutil.Process:
        """Return the process of a program.

        Raises:
            ChaosError: the program is not running.
        """
        process = self.find(name)
        if process is None:
            raise ChaosError(f"{name} is not running")
        return process

    def memory(self, name: str) -> int:
        """Return the resident memory of a program in bytes, or 0 if the program is not running."""
        process = self.find(name)
        with suppress(psutil.NoSuchProcess):
            return int(process.memory_info().rss) if process else 0
        return 0

    def cpu_seconds(self, name: str) -> float:
        """Return the CPU time that a program has used since it started, or 0 if it is not running."""
        process = self.find(name)
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times() if process else None
            return float(times.user + times.system) if times else 0
        return 0

    async def until_back(self, name: str, *, instead_of: int | None = None) -> None:
        """Wait until a program answers again.

        Args:
            name: the program.
            instead_of: the id of the process that was ended, which does not count.

        Raises:
            ChaosError: the program does not answer within a minute.
        """

        async def answers() -> None:
            process = self.find(name)
            if process is None or process.pid == instead_of:
                raise NotReadyError("it is not running")
            await self._probe(name)()

        try:
            await until(answers, _BACK_SECONDS)
        except NotReadyError as exc:
            raise ChaosError(f"{name} was not back within {_BACK_SECONDS} s: {exc}") from exc

    async def start(
        self,
        service: str,
        *,
        module: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        log: Path | None = None,
        nats_port: int | None = None,
    ) -> Child:
        """Start a service in addition to those of the supervisor, and wait until it is ready.

        Args:
            service: `gateway`, `ingest`, `sender` or `notifier`.
            module: the module that runs the service, and its arguments, if it is not the service itself.
            wrapper: a command that runs its arguments.
            log: the file for the output, if it is not the usual one.
            nats_port: the port of NATS, if it is not the usual one.

        Raises:
            StackError: it did not become ready.
        """
        port = free_port()
        environment = {
            **self._environment,
            **self.server_settings,
            "SMS_PROVIDER_URL": self.provider_urls["sms"],
            "EMAIL_PROVIDER_URL": self.provider_urls["email"],
            "GATEWAY_PORT": str(free_port({port})),
            "HEALTH_HOST": HOST,
            "HEALTH_PORT": str(port),
            "GATEWAY_HEALTH_PORT": str(port),
            "LOG_FORMAT": "text",
            "PYTHONUNBUFFERED": "1",
        }
        if nats_port:
            environment["NATS_URL"] = f"nats://{HOST}:{nats_port}"
        command = Command(
            name=service,
            argv=(*wrapper, sys.executable, "-m", *(module or [f"services.{service}"])),
            environment=environment,
            folder=self.folder,
            log=log or self.folder / "services.log",
            grace=30,
        )
        child = Child(command)
        self._additional.append(child)
        await until_ready(child, partial(answers_http, f"http://{HOST}:{port}/readyz"), _START_SECONDS)
        return child

    async def run(self, module: str) -> tuple[int, list[str]]:
        """Run a module to its end, and return its exit status and its last lines."""
        command = Command(
            name=module,
            argv=(sys.executable, "-m", module),
            environment={**self._environment, **self.server_settings},
            folder=self.folder,
        )
        return await run_to_end(command, lambda _: None)

    @property
    def server_settings(self) -> Mapping[str, str]:
        return {
            "DATABASE_URL": self.database_url.replace("postgresql://", "postgresql+asyncpg://", 1),
            "NATS_URL": self.servers,
        }

    @property
    def nats_folder(self) -> Path:
        """The folder in which NATS stores its data."""
        return self.folder / ".data" / NATS

    async def stop_additional(self) -> None:
        """Stop the additional services."""
        await asyncio.gather(*(child.stop() for child in self._additional))

    def configuration_of(self, server: str) -> Path:
        """Return the configuration file, without which NATS or PostgreSQL does not start."""
        names = {NATS: "nats-server.conf", POSTGRES: "postgresql.conf"}
        return self.folder / ".data" / server / names[server]

    def health_url(self, name: str) -> str:
        """Return the URL of the health server of a worker."""
        return f"http://{HOST}:{self._health_port(name)}"

    def _is(self, process: psutil.Process, name: str) -> bool:
        command = process.cmdline()
        match name:
            case "nats":
                return any(part.endswith("nats-server") for part in command)
            case "postgres":
                return any(part.endswith("bin/postgres") for part in command)
            case "gateway":
                return "services.gateway" in command
            case _:
                module = f"services.{name.partition('-')[0]}"
                return module in command and process.environ().get("HEALTH_PORT") == str(
                    self._health_port(name)
                )

    def _health_port(self, name: str) -> int:
        service, _, number = name.partition("-")
        first: int = getattr(self.ports, service)
        return first + int(number or 1) - 1

    def _probe(self, name: str) -> Probe:
        match name:
            case "nats":
                return partial(answers_jetstream, self.servers)
            case "postgres":
                return partial(answers_sql, self.database_url)
            case "gateway":
                return partial(answers_http, f"{self.gateway_url}/healthz")
            case _:
                return partial(answers_http, f"{self.health_url(name)}/healthz")


@asynccontextmanager
async def running_stack(
    folder: Path, settings: Mapping[str, str], *, outside: Outside | None = None
) -> AsyncIterator[Stack]:
    """Run the services and, unless they are given, the servers for the block.

    Args:
        folder: an empty folder.
        settings: environment variables, in addition to the usual ones; `{gateway}`, `{sms}` and so on are
            ports.
        outside: servers that are running already.

    Raises:
        ChaosError: a process did not start.
    """
    ports = free_ports(ingests=len(INGESTS), senders=len(SENDERS), notifiers=len(NOTIFIERS))
    environment = {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        **_SETTINGS,
        "PYTHONPATH": str(ROOT),
        "ALEMBIC_CONFIG": str(ROOT / "alembic.ini"),
        "DATA_DIR": str(folder / ".data"),
        "GATEWAY_PORT": str(ports.gateway),
        "GATEWAY_HEALTH_PORT": str(ports.gateway_health),
        "SMS_PROVIDER_PORT": str(ports.sms),
        "EMAIL_PROVIDER_PORT": str(ports.email),
        "NATS_PORT": str(ports.nats),
        "POSTGRES_PORT": str(ports.postgres),
        "INGEST_HEALTH_PORT": str(ports.ingest),
        "SENDER_HEALTH_PORT": str(ports.sender),
        "NOTIFIER_HEALTH_PORT": str(ports.notifier),
        **(outside.settings if outside else {}),
        **{name: value.format_map(vars(ports)) for name, value in settings.items()},
    }
    log = folder / "services.log"
    command = Command(
        name="supervisor",
        argv=(sys.executable, "-m", "dev.chaos.supervisor"),
        environment=environment,
        folder=folder,
        log=log,
        grace=45,
    )
    child = Child(command)
    try:
        await _until_up(child, log)
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http, AsyncExitStack() as exits:
            stack = Stack(folder, ports, child, http, outside, environment)
            exits.push_async_callback(stack.stop_additional)
            yield stack
    finally:
        await child.stop()


async def _until_up(child: Child, log: Path) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_SECONDS
    while _IS_UP not in await asyncio.to_thread(log.read_text, errors="replace"):
        if child.status is not None or loop.time() > deadline:
            raise ChaosError("\n".join(["the services did not start", *child.last_lines()]))
        await asyncio.sleep(0.1)


def _postgres(folder: Path, port: int) -> PostgresServer:
    return PostgresServer(folder / ".data" / POSTGRES, port, log=folder / "unused.log")


def _nats(folder: Path, port: int) -> NatsServer:
    return NatsServer(folder / ".data" / NATS, port, log=folder / "unused.log")
