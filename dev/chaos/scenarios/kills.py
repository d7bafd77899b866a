"""Programs that are killed, and random faults."""

import asyncio
from datetime import UTC, datetime
from signal import Signals
from typing import Any

from dev.chaos import faults
from dev.chaos.account import Findings
from dev.chaos.load import CHANNELS
from dev.chaos.scene import WARM_UP, Play, Scenario, Scene
from dev.chaos.stack import EVERYTHING, GATEWAY, INGESTS, NATS, POSTGRES, SENDERS, SERVICES
from shared.bus.topology import ACK_WAIT

_REDELIVERED_WITHIN = ACK_WAIT.total_seconds() + 2
"""Seconds after a kill. NATS delivers the messages of the dead process again after `ACK_WAIT`."""

_SUSPENSE = 5.0
"""Seconds after a kill in which the other senders send everything that they already have."""

_WAITING = 96
_SLOTS = {"SMS_PROVIDER_CONCURRENCY": "1"}
"""Settings with which most messages in a sender wait for a slot."""


def _kill(*names: str, **behaviour: Any) -> Play:  # noqa: ANN401 - fields of the behaviour
    async def play(scene: Scene) -> None:
        async with faults.misbehaving(scene.stack, **behaviour):
            await asyncio.sleep(WARM_UP)
            for _ in range(int(scene.pick(short=1, full=4))):
                for name in names:
                    await faults.restart(scene.stack, name, Signals.SIGKILL)
                    await asyncio.sleep(scene.random.uniform(0.2, 1))

    return play


async def _kill_each(scene: Scene) -> None:
    """Kill every program once, in a random order."""
    await asyncio.sleep(WARM_UP)
    for name in scene.random.sample(EVERYTHING, k=len(EVERYTHING)):
        await faults.restart(scene.stack, name, Signals.SIGKILL)
        scene.notes.append(f"killed {name}")


async def _kill_one(scene: Scene) -> None:
    """Kill a sender in which many messages wait for a slot, and some are being sent."""
    async with faults.misbehaving(scene.stack, channels=["sms"], latency_ms=1_000):
        await scene.load.burst("sms", _WAITING)
        name = scene.random.choice(SENDERS)
        scene.kills.append(datetime.now(UTC))
        await faults.end(scene.stack, name, Signals.SIGKILL)
    await scene.stack.until_back(name)
    await asyncio.sleep(_SUSPENSE)  # the load continues


def _check_redelivered(scene: Scene, findings: Findings) -> None:
    """Expect that messages are delivered again within 15 seconds, including those that were being sent."""
    (killed_at,) = scene.kills
    sent_at = {sent.name: sent.at for channel in CHANNELS for sent in findings.sent.get(channel, ())}
    waits = sorted(
        (sent_at[item.name] - killed_at).total_seconds()
        for item in scene.load.record.sends
        if item.name in sent_at and item.accepted_at and item.accepted_at < killed_at < sent_at[item.name]
    )
    again = [wait for wait in waits if wait > _SUSPENSE]
    scene.notes.append(
        f"{len(again)} messages were delivered again, the last after {max(again, default=0):.1f} s"
    )
    scene.expect(bool(again), "the killed sender had no messages")
    for wait in again:
        scene.expect(wait < _REDELIVERED_WITHIN, f"a message waited for {wait:.1f} s")


async def _everything(scene: Scene) -> None:
    """Inject random faults one after another."""
    loop = asyncio.get_running_loop()
    until = loop.time() + scene.pick(short=15, full=90)
    await asyncio.sleep(WARM_UP)
    while loop.time() < until:
        scene.notes.append(await _random_fault(scene))
        await asyncio.sleep(scene.random.uniform(0, 1.5))


async def _random_fault(scene: Scene) -> str:
    """Inject a random fault, and return its description."""
    stack, random = scene.stack, scene.random
    seconds = random.uniform(0.5, 3)
    match random.choice(["kill", "kill", "kill", "terminate", "hang", "misbehave", "misbehave"]):
        case "kill":
            names = random.sample(EVERYTHING, k=random.choice([1, 1, 2, 3]))
            await asyncio.gather(*(faults.end(stack, name, Signals.SIGKILL) for name in names))
            await asyncio.gather(*(stack.until_back(name) for name in names))
            return f"killed {', '.join(names)}"
        case "terminate":
            name = random.choice(SERVICES)
            await faults.restart(stack, name, Signals.SIGTERM)
            return f"terminated {name}"
        case "hang":
            name = random.choice([NATS, POSTGRES, *INGESTS, *SENDERS])
            async with faults.hanging(stack, name):
                await asyncio.sleep(seconds)
            return f"{name} hung for {seconds:.1f} s"
        case _:
            behaviour = random.choice(faults.MISBEHAVIOURS)
            channels = random.choice([["sms"], ["email"], CHANNELS])
            async with faults.misbehaving(stack, channels=channels, **behaviour):
                await asyncio.sleep(seconds)
            return f"{', '.join(channels)} misbehaved for {seconds:.1f} s: {behaviour}"


SCENARIOS = (
    Scenario(
        name="kill-each",
        about="kill -9 of every program, one after the other",
        play=_kill_each,
        disturbs=frozenset(EVERYTHING),
    ),
    Scenario(
        name="kill-gateway",
        about="kill -9 of the gateway",
        play=_kill(GATEWAY),
        disturbs=frozenset({GATEWAY}),
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="kill-ingest",
        about="kill -9 of both ingests",
        play=_kill(*INGESTS),
        disturbs=frozenset(INGESTS),
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="kill-sender",
        about="kill -9 of the three senders during their requests",
        play=_kill(*SENDERS, latency_ms=200),
        disturbs=frozenset(SENDERS),
        in_short=False,
    ),
    Scenario(
        name="kill-one",
        about="kill -9 of one sender: its messages are delivered again within 15 s, and sent once",
        play=_kill_one,
        check=_check_redelivered,
        disturbs=frozenset(SENDERS),
        settings=_SLOTS,
        in_short=False,
    ),
    Scenario(
        name="kill-retrying",
        about="kill -9 of the senders while 40 % of the providers' responses are 500",
        play=_kill(*SENDERS, status=500, rate=0.4),
        disturbs=frozenset(SENDERS),
        in_short=False,
    ),
    Scenario(
        name="kill-postgres",
        about="kill -9 of PostgreSQL",
        play=_kill(POSTGRES),
        disturbs=frozenset({POSTGRES}),
        may_repeat=False,
        in_short=False,
    ),
    Scenario(
        name="kill-nats",
        about="kill -9 of NATS",
        play=_kill(NATS),
        disturbs=frozenset({NATS}),
        in_short=False,
    ),
    Scenario(
        name="everything",
        about="random faults",
        play=_everything,
        disturbs=frozenset(EVERYTHING),
        settle_seconds=240,
    ),
)
