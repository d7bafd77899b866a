"""What is done to the processes, to the servers and to the streams. Each fault ends what it began."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from signal import Signals
from typing import Any

import nats
import nats.errors
import psutil
from nats.aio.client import Client

from dev.chaos.errors import ChaosError
from dev.chaos.load import CHANNELS
from dev.chaos.stack import Stack

_GONE_SECONDS = 30


async def end(stack: Stack, name: str, how: Signals) -> float:
    """Send a signal that ends the program, and wait until it is gone.

    Returns:
        how many seconds it took.

    Raises:
        ChaosError: it does not run, or did not end within 30 s.
    """
    process = stack.process(name)
    stack.disturbed.add(name)
    loop = asyncio.get_running_loop()
    started = loop.time()
    process.send_signal(how)
    while _runs(process):
        if loop.time() > started + _GONE_SECONDS:
            raise ChaosError(f"{name} did not end within {_GONE_SECONDS} s of {how.name}")
        await asyncio.sleep(0.02)
    return loop.time() - started


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def restart(stack: Stack, name: str, how: Signals) -> float:
    """End the program, and wait until the supervisor has it running again; returns like `end`."""
    before = stack.process(name).pid
    took = await end(stack, name, how)
    await stack.until_back(name, instead_of=before)
    return took


@asynccontextmanager
async def away(stack: Stack, server: str) -> AsyncIterator[None]:
    """Kill NATS or PostgreSQL, and keep it from starting again while inside.

    The supervisor tries all the same, so that after leaving it may take as long again until it is back.
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
    """Stop all processes of a program in their tracks while inside: connections stay, answers don't come.

    Args:
        stack: where it runs.
        name: of the program.
        wait: when left, until it answers again.
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
async def misbehaving(
    stack: Stack,
    *,
    channels: Iterable[str] = CHANNELS,
    **behaviour: Any,  # noqa: ANN401
) -> AsyncIterator[None]:
    """Let the providers of these channels misbehave while inside, as their README tells."""
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
    """A connection to NATS of our own."""
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
    """Leave `room` bytes in each stream that refuses when it is full, while inside."""
    async with connected(stack) as client:
        before = []
        try:
            for name in (await _ask(client, "STREAM.NAMES", {}))["streams"]:
                info = await _ask(client, f"STREAM.INFO.{name}", {})
                if info["config"]["discard"] == "new":
                    before.append(info["config"])
                    limited = {**info["config"], "max_bytes": info["state"]["bytes"] + room}
                    await _ask(client, f"STREAM.UPDATE.{name}", limited)
            yield
        finally:
            for config in before:
                await _ask(client, f"STREAM.UPDATE.{config['name']}", config)


async def _ask(client: Client, what: str, question: dict[str, Any]) -> dict[str, Any]:
    reply = await client.request(f"$JS.API.{what}", json.dumps(question).encode(), timeout=10)
    answer: dict[str, Any] = json.loads(reply.data)
    if "error" in answer:
        raise ChaosError(f"NATS refuses {what}: {answer['error']}")
    return answer


async def _keep_quiet(_: Exception) -> None:
    """What goes wrong is raised where it matters."""
