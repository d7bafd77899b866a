"""Senders that are cut off from NATS, or suspended, while the others take over their conversations."""

import asyncio

from dev.chaos import faults, order, shares
from dev.chaos.proxy import proxying
from dev.chaos.scenarios.servers import TWILIO_AND_SENDGRID
from dev.chaos.scene import WARM_UP, Play, Scenario, Scene
from dev.chaos.stack import SENDERS

_LATENCY = 500
"""Milliseconds, so that there are requests in progress when the fault happens."""

_FOR_LONG = 35.0
"""Longer than a claim lasts, so that the others do not know whether a message was sent."""

_FOR_A_WHILE = 20.0
"""Long enough for the others to take over and get the messages again, while all claims are respected."""


def _cut_off(*, short: float, full: float) -> Play:
    """Cut one of two senders off from NATS for some seconds; the providers remain within its reach."""

    async def play(scene: Scene) -> None:
        stack = scene.stack
        async with (
            proxying(stack.ports.nats) as proxy,
            shares.watching(stack) as held,
            faults.misbehaving(stack, latency_ms=_LATENCY),
        ):
            sender = await stack.start("sender", nats_port=proxy.port)
            await held.until_divided(2)
            await asyncio.sleep(2 * WARM_UP)
            scene.excuse_disorder()
            proxy.cut()
            missing = asyncio.create_task(asyncio.sleep(scene.pick(short=short, full=full)))
            seconds = await held.until_divided(1)
            scene.notes.append(f"the other sender took over within {seconds:.1f} s")
            await missing
            proxy.heal()
            seconds = await held.until_divided(2)
            scene.notes.append(f"the shares were equal {seconds:.1f} s after the reconnection")
            await asyncio.sleep(WARM_UP)
            await sender.stop()

    return play


async def _cut_off_briefly(scene: Scene) -> None:
    """Cut one of two senders off repeatedly: the other one considers it dead, but its pins last."""
    stack = scene.stack
    async with (
        proxying(stack.ports.nats) as proxy,
        shares.watching(stack) as held,
        faults.misbehaving(stack, latency_ms=_LATENCY),
    ):
        sender = await stack.start("sender", nats_port=proxy.port)
        await held.until_divided(2)
        for _ in range(int(scene.pick(short=2, full=8))):
            await asyncio.sleep(scene.random.uniform(1, 3))
            proxy.cut()
            await asyncio.sleep(scene.random.uniform(2.2, 2.8))
            proxy.heal()
        await held.until_divided(2)
        await sender.stop()


async def _suspend(scene: Scene) -> None:
    """Suspend senders for longer than their presence and pins last, and for longer than their claims last."""
    stack = scene.stack
    durations = [8.0] if scene.is_short else [8.0, _FOR_A_WHILE, _FOR_LONG]
    async with shares.watching(stack) as held, faults.misbehaving(stack, latency_ms=_LATENCY):
        for name, seconds in zip(SENDERS, durations, strict=False):
            await held.until_divided(len(SENDERS))
            await asyncio.sleep(2 * WARM_UP)
            scene.excuse_disorder()
            async with faults.hanging(stack, name, wait=False):
                missing = asyncio.create_task(asyncio.sleep(seconds))
                taken_over = await held.until_divided(len(SENDERS) - 1)
                await missing
            equal = await held.until_divided(len(SENDERS))
            scene.notes.append(
                f"{name} was suspended for {seconds:g} s: the others took over within {taken_over:.1f} s,"
                f" and the shares were equal {equal:.1f} s after it continued"
            )
        await asyncio.sleep(WARM_UP)


SCENARIOS = (
    Scenario(
        name="suspended",
        about="SIGSTOP of a sender for longer than its pins and its claims last, then SIGCONT",
        play=_suspend,
        check=order.check,
        in_short=False,
    ),
    Scenario(
        name="split-brain",
        about="one of two senders loses NATS, but not the providers, while it sends",
        play=_cut_off(short=8, full=_FOR_LONG),
        check=order.check,
        settings={"SENDERS": "1"},
    ),
    Scenario(
        name="split-briefly",
        about="the same for so short a time that its requests to NATS are still answered: nothing fails",
        play=_cut_off_briefly,
        check=order.check_exact,
        settings={"SENDERS": "1"},
        rate=60,
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="split-no-keys",
        about="the same, and the providers do not support idempotency keys",
        play=_cut_off(short=8, full=_FOR_A_WHILE),
        check=order.check,
        settings={**TWILIO_AND_SENDGRID, "SENDERS": "1"},
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="split-in-doubt",
        about="the same for longer than a claim lasts: messages in doubt are not sent again",
        play=_cut_off(short=8, full=_FOR_LONG),
        check=order.check,
        settings={**TWILIO_AND_SENDGRID, "SENDERS": "1", "ON_AMBIGUOUS": "fail"},
        may_repeat=False,
        may_doubt=True,
        in_short=False,
    ),
)
