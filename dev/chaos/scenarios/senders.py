"""Senders that start and stop properly, so that nothing fails and each conversation is sent in order."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from signal import Signals

from dev.chaos import faults, order, shares
from dev.chaos.account import Findings
from dev.chaos.load import CHANNELS, by_conversation
from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.chaos.stack import GATEWAY, INGESTS, SENDERS, SERVICES
from shared.bus.topology import ACK_WAIT

_END_SECONDS = 10
"""The longest time that a service may take to stop."""

_HANDED_OVER_SECONDS = ACK_WAIT.total_seconds()
"""A message that reaches its provider sooner than this was not left to be redelivered."""

_BUSY = 800
"""Latency of the providers in milliseconds."""

_HOT_CONVERSATIONS = 8
_LINE = 4
"""Messages that wait in each of these conversations when a sender starts or stops."""


async def _calm(scene: Scene) -> None:
    await asyncio.sleep(scene.pick(short=4, full=20))


async def _terminate_each(scene: Scene) -> None:
    async with faults.misbehaving(scene.stack, latency_ms=150):  # so that there are requests in progress
        await asyncio.sleep(WARM_UP)
        for name in (GATEWAY, INGESTS[0], SENDERS[0]) if scene.is_short else SERVICES:
            seconds = await faults.restart(scene.stack, name, Signals.SIGTERM)
            scene.notes.append(f"{name} ended in {seconds:.1f} s")
            scene.expect(seconds <= _END_SECONDS, f"{name} took {seconds:.1f} s to end")


def _check_handed_over(scene: Scene, findings: Findings) -> None:
    waits = sorted(_waits(scene, findings))
    scene.notes.append(f"a message that was next in its conversation waited for at most {waits[-1][0]:.1f} s")
    late = [f"{id_} ({seconds:.1f} s)" for seconds, id_ in waits if seconds >= _HANDED_OVER_SECONDS]
    scene.expect(not late, f"{len(late)} messages waited for their redelivery: {', '.join(late[-5:])}")


def _waits(scene: Scene, findings: Findings) -> Iterator[tuple[float, str | None]]:
    """Yield the seconds for which each message could have been sent but was not, and its id.

    It could be sent when it was accepted, or, if that is later, when the one before it in its conversation
    had been sent. The providers are so slow that many messages wait in the busiest conversations.
    """
    sent_at = {sent.name: sent.at for channel in CHANNELS for sent in findings.sent.get(channel, ())}
    for conversation in by_conversation([item for item in scene.load.record.sends if item.name in sent_at]):
        free_at = datetime.min.replace(tzinfo=UTC)
        for item in conversation:
            if item.accepted_at:
                yield (sent_at[item.name] - max(item.accepted_at, free_at)).total_seconds(), item.id
            free_at = sent_at[item.name]


async def _scale(scene: Scene) -> None:
    """Go from one sender to four and back, one at a time, and in the full form also all at once."""
    async with faults.misbehaving(scene.stack, latency_ms=_BUSY), shares.watching(scene.stack) as held:
        await held.until_divided(1)
        await _scale_one_by_one(scene, held)
        if not scene.is_short:
            queueing = asyncio.create_task(_queue(scene, 4 * _LINE))
            started = await asyncio.gather(*(scene.stack.start("sender") for _ in range(3)))
            await queueing
            await _note_division(scene, held, 4)
            await _queue(scene)
            await asyncio.gather(*(sender.stop() for sender in started))
            await _note_division(scene, held, 1)
            await _scale_one_by_one(scene, held)


async def _scale_one_by_one(scene: Scene, held: shares.Shares) -> None:
    started = []
    for count in (2, 3, 4):
        sender, _ = await asyncio.gather(scene.stack.start("sender"), _queue(scene, 2 * _LINE))
        started.append(sender)
        await _note_division(scene, held, count)
    for sender in scene.random.sample(started, k=len(started)):
        await _queue(scene)
        await sender.stop()
        scene.expect(sender.status != -Signals.SIGKILL, "a sender did not stop by itself")
    await _note_division(scene, held, 1)


async def _queue(scene: Scene, length: int = _LINE) -> None:
    """Send several messages in each of some conversations, so that they wait for each other in a sender."""
    await scene.load.burst("sms", _HOT_CONVERSATIONS * length, conversations=_HOT_CONVERSATIONS)


async def _note_division(scene: Scene, held: shares.Shares, senders: int) -> None:
    seconds = await held.until_divided(senders)
    scene.notes.append(f"the shares of {senders} senders were equal after {seconds:.1f} s")


async def _restart_in_turn(scene: Scene) -> None:
    async with faults.misbehaving(scene.stack, latency_ms=_BUSY):
        await asyncio.sleep(2 * WARM_UP)
        for _ in range(int(scene.pick(short=1, full=2))):
            for name in SENDERS:
                await _queue(scene)
                seconds = await faults.restart(scene.stack, name, Signals.SIGTERM)
                scene.expect(seconds <= _END_SECONDS, f"{name} took {seconds:.1f} s to end")
                await asyncio.sleep(scene.random.uniform(0, 1))


def _check_order_and_waits(scene: Scene, findings: Findings) -> None:
    order.check_exact(scene, findings)
    _check_handed_over(scene, findings)


SCENARIOS = (
    Scenario(
        name="order",
        about="nothing fails: the messages of a conversation are sent in order, by three senders",
        play=_calm,
        check=order.check_exact,
        rate=60,
        may_repeat=False,
    ),
    Scenario(
        name="terminate",
        about="SIGTERM of each service: its messages are finished or handed back",
        play=_terminate_each,
        check=_check_order_and_waits,
        disturbs=frozenset(SERVICES),
        may_repeat=False,
    ),
    Scenario(
        name="rolling-restart",
        about="SIGTERM of one sender after another: messages are handed over in order",
        play=_restart_in_turn,
        check=_check_order_and_waits,
        disturbs=frozenset(SENDERS),
        rate=60,
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="scale",
        about="one sender becomes four, and one again: messages are handed over in order",
        play=_scale,
        check=_check_order_and_waits,
        settings={"SENDERS": "1"},
        rate=60,
        may_repeat=False,
    ),
)
