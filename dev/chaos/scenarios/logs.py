"""Logs that cannot be written."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from dev.chaos import faults
from dev.chaos.account import accepted_by_providers, stored
from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.chaos.stack import Stack
from dev.local_stack.processes import Child
from dev.local_stack.servers import HOST

_REPLACED = ("ingest", "sender")
"""The services whose processes are suspended while others take their place."""


@asynccontextmanager
async def _pipe(stack: Stack) -> AsyncIterator[tuple[Path, Callable[[], None]]]:
    """Create a pipe whose reader reads nothing; yield a function that closes the reader, too."""
    path = stack.folder / "unread"
    os.mkfifo(path)
    open_ends = [os.open(path, os.O_RDONLY | os.O_NONBLOCK)]
    try:
        yield path, lambda: os.close(open_ends.pop())
    finally:
        for end in open_ends:
            os.close(end)
        path.unlink()


async def _broken_logs(scene: Scene) -> None:
    await asyncio.sleep(WARM_UP)
    seconds = scene.pick(short=4, full=30)
    async with _pipe(scene.stack) as (path, close):
        start = [scene.stack.start(service, log=path) for service in ("gateway", *_REPLACED)]
        async with _replaced(scene.stack, start):
            await _expect_progress(scene, "while nobody reads the logs", seconds)
            close()
            await _expect_progress(scene, "after the readers of the logs have ended", seconds)
    start = [scene.stack.start(service, wrapper=faults.TO_FULL_DEVICE) for service in ("gateway", *_REPLACED)]
    async with _replaced(scene.stack, start):
        await _expect_progress(scene, "while the device of the logs is full", seconds)


@asynccontextmanager
async def _replaced(stack: Stack, start: Sequence[Awaitable[Child]]) -> AsyncIterator[None]:
    """Let these processes do all the work for the block; the supervisor's are suspended."""
    started = await asyncio.gather(*start)
    usual = stack.gateway_url
    async with AsyncExitStack() as exits:
        for child in started:
            exits.push_async_callback(child.stop)
        for name in _REPLACED:
            await exits.enter_async_context(faults.hanging(stack, name))
        stack.gateway_url = f"http://{HOST}:{started[0].command.environment['GATEWAY_PORT']}"
        try:
            yield
        finally:
            stack.gateway_url = usual


async def _expect_progress(scene: Scene, when: str, seconds: float) -> None:
    """Expect that everything that is accepted is also sent and stored."""
    await asyncio.sleep(WARM_UP)
    started = asyncio.get_running_loop().time()
    before = sum((await accepted_by_providers(scene.stack)).values()), await stored(scene.stack)
    await asyncio.sleep(seconds)
    answers = scene.load.record.since(started, "send")
    accepted = sum(answer.is_accepted for answer in answers)
    sent = sum((await accepted_by_providers(scene.stack)).values()) - before[0]
    rows = await stored(scene.stack) - before[1]
    scene.note_latency(when, answers)
    scene.notes.append(f"{when} {accepted} sends were accepted, {sent} sent, and {rows} messages stored")
    scene.expect(accepted == len(answers), f"{len(answers) - accepted} sends were not accepted {when}")
    scene.expect(sent > accepted / 2, f"too few messages reached a provider {when}")
    scene.expect(rows > accepted / 2, f"too few messages were stored {when}")


SCENARIOS = (
    Scenario(
        name="broken-log",
        about="the logs go to a pipe that nobody reads, then to a closed one, and to a full device",
        play=_broken_logs,
        settings={"INGESTS": "1", "SENDERS": "1", "LOG_LEVEL": "DEBUG"},
        in_short=False,
    ),
)
