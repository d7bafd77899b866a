"""A real PostgreSQL and a real NATS for the tests, in containers or from Python wheels.

`TEST_INFRA` selects `docker` or `embedded`. Unless it is set, containers are used if an engine can run them.
In both cases a server keeps its address when it is stopped and started again. It can also be killed or
paused:

    async with infrastructure.postgres(tmp_path) as server:
        async with server.database() as url:
            ...
"""

import functools
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import asyncpg

from dev.local_stack.readiness import answers_jetstream, answers_sql
from dev.local_stack.servers import NatsServer, PostgresServer
from tests.containers import Container, EngineMissingError, ImagesMissingError, fetch_images
from tests.ports import free_port

POSTGRES_IMAGE = "postgres:15-alpine"
NATS_IMAGE = "nats:2.14-alpine"


class Mode(StrEnum):
    DOCKER = "docker"
    EMBEDDED = "embedded"


class InfrastructureWarning(UserWarning):
    pass


class Server(Protocol):
    """A server that a test may stop, kill or pause."""

    @property
    def url(self) -> str: ...

    async def start(self) -> None:
        """Start the server, and return when it answers."""

    async def stop(self) -> None: ...

    async def kill(self) -> None:
        """Kill the server, as in a crash."""

    async def pause(self) -> None:
        """Make the server hang: connections stay open, but get no responses."""

    async def resume(self) -> None: ...


class Postgres:
    """A PostgreSQL, in which each test can have its own database.

    Attributes:
        server: the server, which can be stopped and started.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def admin_url(self) -> str:
        """The URL of a superuser, with a database that tests do not use."""
        return self.server.url

    def url_of(self, database: str) -> str:
        """Return the `postgresql://…` URL of a database of this server."""
        return f"{self.server.url.rpartition('/')[0]}/{database}"

    @asynccontextmanager
    async def database(self, template: str = "template1") -> AsyncIterator[str]:
        """Create a database for the block; yield its `postgresql://…` URL.

        Args:
            template: the database that is copied. There may be no connection to it.
        """
        name = f"test_{uuid4().hex}"
        await self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url_of(name)
        finally:
            await self._administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Postgres]:
    """Run a PostgreSQL with its data in a folder."""
    server = _postgres_container() if mode() is Mode.DOCKER else _embedded_postgres(folder)
    async with _running(server):
        yield Postgres(server)


@asynccontextmanager
async def nats(folder: Path) -> AsyncIterator[Server]:
    """Run a nats-server with JetStream with its data in a folder."""
    server = _nats_container() if mode() is Mode.DOCKER else _embedded_nats(folder)
    async with _running(server):
        yield server


def mode() -> Mode:
    """Return how this process runs servers. The first call may fetch two images."""
    chosen = os.environ.get("TEST_INFRA", "").strip()
    return Mode(chosen) if chosen else _best_mode()


@functools.cache
def _best_mode() -> Mode:
    try:
        fetch_images(POSTGRES_IMAGE, NATS_IMAGE)
    except EngineMissingError:
        return Mode.EMBEDDED
    except ImagesMissingError as exc:
        # Other warnings are errors; this one is only shown in the summary.
        with warnings.catch_warnings():
            warnings.simplefilter("always", InfrastructureWarning)
            warnings.warn(f"{exc}: the tests use embedded servers", InfrastructureWarning, stacklevel=1)
        return Mode.EMBEDDED
    return Mode.DOCKER


class _Disposable(Server, Protocol):
    async def dispose(self) -> None: ...


@asynccontextmanager
async def _running(server: _Disposable) -> AsyncIterator[None]:
    try:
        await server.start()
        yield
    finally:
        await server.dispose()


class _Embedded:
    def __init__(self, server: NatsServer | PostgresServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    async def kill(self) -> None:
        await self._server.kill()

    async def pause(self) -> None:
        self._server.pause()

    async def resume(self) -> None:
        self._server.resume()

    async def dispose(self) -> None:
        # Nobody needs its data any more.
        await self._server.kill()


def _embedded_postgres(folder: Path) -> _Embedded:
    log = folder / "postgres.log"
    return _Embedded(PostgresServer(folder / "postgres", free_port(), log=log, durable=False))


def _embedded_nats(folder: Path) -> _Embedded:
    return _Embedded(NatsServer(folder / "nats", free_port(), log=folder / "nats.log", durable=False))


def _postgres_container() -> Container:
    return Container(
        POSTGRES_IMAGE,
        command=["postgres", "-c", "fsync=off", "-c", "full_page_writes=off"],
        environment={
            "POSTGRES_USER": PostgresServer.user,
            "POSTGRES_PASSWORD": PostgresServer.password,
            "POSTGRES_DB": PostgresServer.database,
        },
        port=5432,
        url=f"postgresql://{PostgresServer.user}:{PostgresServer.password}@{{address}}/{PostgresServer.database}",
        ready=answers_sql,
    )


def _nats_container() -> Container:
    return Container(
        NATS_IMAGE,
        command=["-js", "-sd", "/data"],
        port=4222,
        url="nats://{address}",
        ready=answers_jetstream,
    )
