"""Wall clocks that jump by a day, and back, while the processes are running."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

from dev.chaos import faults, shares
from dev.chaos.clock import WrongClock, build_library
from dev.chaos.metrics import total
from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.chaos.stack import Stack
from dev.local_stack.processes import Child
from dev.local_stack.servers import HOST

_STANDSTILL = 10.0
"""Seconds. The breakers and pauses that begin while a clock is wrong last for two."""


async def _jump(scene: Scene) -> None:
    """Make the clocks of a gateway and a sender jump while breakers and pauses of the sender begin."""
    stack = scene.stack
    await build_library(stack.folder)
    senders, gateways = WrongClock(stack.folder, "sender"), WrongClock(stack.folder, "gateway")
    sender = await stack.start("sender", wrapper=senders.wrapper)
    gateway = await stack.start("gateway", wrapper=gateways.wrapper)
    usual, stack.gateway_url = stack.gateway_url, _url(gateway, "GATEWAY_PORT")
    async with shares.watching(stack) as held:
        await held.until_divided(2)
        await asyncio.sleep(WARM_UP)
        for days in (1,) if scene.is_short else (1, -1, 1, -30):
            error = timedelta(days=days)
            async with AsyncExitStack() as clocks:
                await clocks.enter_async_context(senders.wrong_by(stack, error, _health_url(sender)))
                if days > 0:  # a gateway that is days behind accepts only messages that have expired
                    await clocks.enter_async_context(gateways.wrong_by(stack, error, _health_url(gateway)))
                await _misbehave(scene, sender)
            await _expect_sending(scene, sender, held)
    stack.gateway_url = usual
    await asyncio.gather(gateway.stop(), sender.stop())


async def _misbehave(scene: Scene, sender: Child) -> None:
    """Open breakers, begin pauses, and return six seconds after the clock jumped."""
    until = asyncio.get_running_loop().time() + 6
    sent = partial(_sent, scene.stack, sender)
    before = await sent()
    await asyncio.sleep(2)
    scene.expect(await sent() > before, "the sender with the wrong clock sent nothing")
    async with faults.misbehaving(scene.stack, status=500):
        await asyncio.sleep(2)
    async with faults.misbehaving(scene.stack, status=429, retry_after=2):
        await asyncio.sleep(until - asyncio.get_running_loop().time())


async def _expect_sending(scene: Scene, sender: Child, held: shares.Shares) -> None:
    """Expect that the sender has its share again, and sends, soon after its clock jumped back."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    sent = partial(_sent, scene.stack, sender)
    before = await sent()
    await held.until_divided(2)
    while await sent() == before and loop.time() < started + 2 * _STANDSTILL:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    seconds = loop.time() - started
    scene.notes.append(f"the sender had its share {seconds:.1f} s after its clock was right again")
    scene.expect(seconds < _STANDSTILL, f"the sender stood still for {seconds:.0f} s")


async def _sent(stack: Stack, sender: Child) -> int:
    return await total(stack, _health_url(sender), "messaging_send_attempts_total", outcome="sent")


def _health_url(process: Child) -> str:
    return _url(process, "GATEWAY_HEALTH_PORT")


def _url(process: Child, port: str) -> str:
    return f"http://{HOST}:{process.command.environment[port]}"


SCENARIOS = (
    Scenario(
        name="clocks",
        about="a wall clock jumps by a day, and back: nothing expires or stands still",
        play=_jump,
        settings={"SENDERS": "1"},
    ),
)
