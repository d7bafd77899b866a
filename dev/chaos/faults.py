"""The faults that are injected into processes, servers and streams; each one is undone at its end."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import Signals
from typing import Any

import nats
import nats.errors
import psutil
from nats.aio.client import Client

from dev.chaos.errors import ChaosError, NotPossibleError
from dev.chaos.load import CHANNELS
from dev.chaos.stack import Stack

TO_FULL_DEVICE = ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")
"""A command that runs its arguments with an output that cannot be written."""

MISBEHAVIOURS: tuple[dict[str, Any], ...] = (
    {"status": 500, "rate": 0.3},
    {"status": 429, "retry_after": 2},
    {"status": 503, "html": True},
    {"hang": True, "rate": 0.5},
    {"drop_connection": True, "rate": 0.5},
    {"ambiguous": True, "rate": 0.5},
    {"latency_ms": 400},
)
"""Ways in which a provider can misbehave."""

_END_SECONDS = 30


async def end(stack: Stack, name: str, how: Signals) -> float:
    """Send a signal that ends the program, and wait for its end.

    Returns:
        The seconds that it took to end.

    Raises:
        ChaosError: the program is not running, or did not end within 30 seconds.
    """
    process = stack.process(name)
    stack.disturbed.add(name)
    loop = asyncio.get_running_loop()
    started = loop.time()
    process.send_signal(how)
    while _is_running(process):
        if loop.time() > started + _END_SECONDS:
            raise ChaosError(f"{name} did not end within {_END_SECONDS} s of {how.name}")
        await asyncio.sleep(0.02)
    return loop.time() - started


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def restart(stack: Stack, name: str, how: Signals) -> float:
    """End the program, and wait until the supervisor has restarted it; returns the same as `end`."""
    before = stack.process(name).pid
    seconds = await end(stack, name, how)
    await stack.until_back(name, instead_of=before)
    return seconds


@asynccontextmanager
async def away(stack: Stack, server: str) -> AsyncIterator[None]:
    """Kill NATS or PostgreSQL, and prevent its restart for the block.

    The supervisor keeps trying, with growing pauses. After the block, it may therefore take as long again
    until the server is back.
    """
    configuration = stack.configuration_of(server)
    hidden = configuration.with_suffix(".hidden")
    configuration.rename(hidden)
    try:
        await end(stack, server, Signals.SIGKILL)
        yield
    finally:
        hidden.rename(configuration)
    await stack.until_back(server)


@asynccontextmanager
async def hanging(stack: Stack, name: str, *, wait: bool = True) -> AsyncIterator[None]:
    """Suspend all processes of a program for the block: connections stay open, but get no responses.

    Args:
        stack: the stack.
        name: the program.
        wait: whether to wait, after the block, until it answers again.
    """
    process = stack.process(name)
    family = [process, *process.children(recursive=True)]
    try:
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.suspend()
        yield
    finally:
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.resume()
    if wait:
        await stack.until_back(name)


@asynccontextmanager
async def unread_logs(stack: Stack) -> AsyncIterator[None]:
    """Suspend the supervisor, which reads the logs of the services through pipes, for the block."""
    stack.supervisor.suspend()
    try:
        yield
    finally:
        stack.supervisor.resume()


@asynccontextmanager
async def misbehaving(
    stack: Stack,
    *,
    channels: Iterable[str] = CHANNELS,
    **behaviour: Any,  # noqa: ANN401
) -> AsyncIterator[None]:
    """Set the behaviour of the mock providers of these channels for the block."""
    urls = [f"{stack.provider_urls[channel]}/mock/behaviour" for channel in channels]
    try:
        for url in urls:
            (await stack.http.put(url, json=behaviour)).raise_for_status()
        yield
    finally:
        for url in urls:
            (await stack.http.delete(url)).raise_for_status()


@asynccontextmanager
async def connected(stack: Stack) -> AsyncIterator[Client]:
    """Connect to NATS for the block."""
    client = await nats.connect(
        stack.servers.split(","),
        name="dev.chaos",
        connect_timeout=3,
        max_reconnect_attempts=5,
        error_cb=_keep_quiet,
    )
    try:
        yield client
    finally:
        with suppress(nats.errors.Error, OSError, TimeoutError):
            await client.close()


@asynccontextmanager
async def full(stack: Stack, *, room: int = 2_000) -> AsyncIterator[None]:
    """Limit each stream that rejects messages when it is full to `room` more bytes, for the block."""
    async with connected(stack) as client:
        before = []
        try:
            for name in (await _request(client, "STREAM.NAMES", {}))["streams"]:
                info = await _request(client, f"STREAM.INFO.{name}", {})
                if info["config"]["discard"] == "new":
                    before.append(info["config"])
                    limited = {**info["config"], "max_bytes": info["state"]["bytes"] + room}
                    await _request(client, f"STREAM.UPDATE.{name}", limited)
            yield
        finally:
            for config in before:
                await _request(client, f"STREAM.UPDATE.{config['name']}", config)


@asynccontextmanager
async def ageing(stack: Stack, streams: Iterable[str], *, seconds: float) -> AsyncIterator[None]:
    """Let these streams drop messages that are older than this, for the block."""
    async with connected(stack) as client:
        before = []
        try:
            for name in streams:
                config = (await _request(client, f"STREAM.INFO.{name}", {}))["config"]
                before.append(config)
                duplicate_window = min(config["duplicate_window"], int(seconds * 1e9))
                limited = {**config, "max_age": int(seconds * 1e9), "duplicate_window": duplicate_window}
                await _request(client, f"STREAM.UPDATE.{name}", limited)
            yield
        finally:
            for config in before:
                await _request(client, f"STREAM.UPDATE.{config['name']}", config)


@asynccontextmanager
async def full_disk(stack: Stack) -> AsyncIterator[None]:
    """Fill the disk of NATS for the block."""
    filler = stack.nats_folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4_096))
        yield
    finally:
        filler.unlink()


@asynccontextmanager
async def small_disk(folder: Path, mebibytes: int) -> AsyncIterator[None]:
    """Mount a file system of this size at a folder for the block.

    Raises:
        NotPossibleError: the user must not mount file systems.
    """
    await run("mkdir", "-p", str(folder))
    if await run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)):
        raise NotPossibleError("only root can mount a file system")
    try:
        yield
    finally:
        await run("umount", "--lazy", str(folder))


async def run(*command: str) -> int:
    """Run a command without showing its output, and return its exit status."""
    silent = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=silent, stderr=silent)
    except OSError:
        return 1
    return await process.wait()


async def _request(client: Client, name: str, payload: dict[str, Any]) -> dict[str, Any]:
    reply = await client.request(f"$JS.API.{name}", json.dumps(payload).encode(), timeout=10)
    answer: dict[str, Any] = json.loads(reply.data)
    if "error" in answer:
        raise ChaosError(f"NATS refuses {name}: {answer['error']}")
    return answer


async def _keep_quiet(_: Exception) -> None:
    """Ignore the error, which is raised as well."""
