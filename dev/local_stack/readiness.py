"""Asks servers and services whether they are ready."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import asyncpg
import httpx
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from dev.local_stack.errors import NotStartedError
from dev.local_stack.processes import Child, describe

Probe = Callable[[], Awaitable[None]]
"""Asks once, and raises NotReadyError if the server is not ready."""

_ASK_EVERY = 0.05
_ASK_FOR = 3
"""Seconds that one server has to answer."""

_LONGEST_PROBE = 10


class NotReadyError(Exception):
    """A server or service is not ready; the message has the reason, without passwords."""


async def answers_http(url: str) -> None:
    """Ask a service, which is ready if it returns a 200. Raises NotReadyError."""
    try:
        # Proxies from the environment are not meant for this machine.
        async with httpx.AsyncClient(trust_env=False, timeout=_ASK_FOR) as client:
            response = await client.get(url)
    except httpx.HTTPError as exc:
        raise NotReadyError(f"{url}: {_text(exc)}") from exc
    if response.status_code != httpx.codes.OK:
        raise NotReadyError(f"{url}: {response.status_code} {response.text[:200]}")


async def answers_sql(dsn: str, *, data_folder: str | None = None) -> None:
    """Ask PostgreSQL.

    Args:
        dsn: its URL, with or without a SQLAlchemy driver in the scheme.
        data_folder: the data folder of the server that should answer, as another may listen on its port.

    Raises:
        NotReadyError: it does not answer, or refuses the user, the password or the database.
    """
    scheme, rest = dsn.split("://", 1) if "://" in dsn else ("", "")
    try:
        connection = await asyncpg.connect(f"{scheme.partition('+')[0]}://{rest}", timeout=_ASK_FOR)
    except (asyncpg.PostgresError, OSError) as exc:
        raise NotReadyError(_text(exc)) from exc
    except (asyncpg.InterfaceError, ValueError) as exc:
        # The text of the error may contain the URL with the password.
        raise NotReadyError(
            "its URL does not have the form postgresql://user:password@host:port/name"
        ) from exc
    try:
        if data_folder is None:
            await connection.fetchval("select 1", timeout=_ASK_FOR)
        elif data_folder != await connection.fetchval("select current_setting('data_directory')"):
            raise NotReadyError("another PostgreSQL listens on its port")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise NotReadyError(_text(exc)) from exc
    finally:
        connection.terminate()


async def answers_jetstream(urls: str) -> None:
    """Ask NATS for JetStream; one of several servers is enough. Raises NotReadyError."""
    reason = NotReadyError("its URL is empty")
    for url in filter(None, map(str.strip, urls.split(","))):
        try:
            await _ask_jetstream(url)
        except NotReadyError as exc:
            reason = exc
        else:
            return
    raise reason


async def _ask_jetstream(url: str) -> None:
    await count_streams(url)


async def count_streams(url: str) -> int:
    """Return the number of streams. Raises NotReadyError."""
    async with connected(url) as client:
        try:
            return (await client.jetstream(timeout=_ASK_FOR).account_info()).streams
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as exc:
            raise NotReadyError("it answers, but its JetStream does not") from exc


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    async def keep_quiet(_: Exception) -> None:
        """Ignore the error, which is raised as well."""

    client = Client()
    try:
        # The client limits the steps of an attempt, but not the whole attempt.
        async with asyncio.timeout(_ASK_FOR):
            await client.connect(
                url,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=keep_quiet,
            )
        yield client
    except (nats.errors.Error, OSError, TimeoutError) as exc:
        raise NotReadyError(_text(client.last_error or exc)) from exc
    except ValueError as exc:
        # The text of the error may contain the URL with the password.
        raise NotReadyError("its URL does not have the form nats://user:password@host:port") from exc
    finally:
        # An assertion fails if there was never a connection.
        with suppress(nats.errors.Error, OSError, AssertionError):
            await client.close()


def place(url: str, default_port: int) -> str:
    """Return the host and the port of a URL, without its password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "an unreadable address"
    return f"{host or 'localhost'}:{port or default_port}"


async def until(probe: Probe, seconds: float) -> None:
    """Ask until it is ready. Raises NotReadyError with the last reason when the time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            async with asyncio.timeout(_LONGEST_PROBE):
                return await probe()
        except NotReadyError as exc:
            reason = exc
        except TimeoutError:
            reason = NotReadyError("no answer")
        if loop.time() >= deadline:
            raise reason
        await asyncio.sleep(_ASK_EVERY)


async def until_ready(child: Child, probe: Probe, seconds: float) -> None:
    """Wait until a process that was just started is ready.

    Raises:
        NotStartedError: it ended, or was not ready in time.
    """
    name = child.command.name

    async def asked_while_it_runs() -> None:
        if child.status is None:
            await probe()

    try:
        await until(asked_while_it_runs, seconds)
    except NotReadyError as exc:
        raise NotStartedError(f"{name} was not ready in {seconds:g} s: {exc}", child.last_lines()) from exc
    # The answer counts only if this process gave it.
    if child.status is not None:
        raise NotStartedError(f"{name} {describe(child.status)} before it was ready", child.last_lines())


def _text(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
