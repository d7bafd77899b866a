"""Random faults, drawn from a seed, one after another and overlapping."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from signal import Signals
from typing import Any

from dev.chaos import faults
from dev.chaos.load import CHANNELS
from dev.chaos.proxy import proxying
from dev.chaos.scenarios import poison
from dev.chaos.scene import WARM_UP, Scenario, Scene
from dev.chaos.stack import EVERYTHING, INGESTS, NATS, POSTGRES, SENDERS, SERVICES

_AT_ONCE = 3
_LONGEST_PAUSE = 3.0
"""Seconds between the beginnings of two faults."""

_SUPERVISOR = "supervisor"

Inject = Callable[[Scene], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A kind of fault.

    Attributes:
        inject: injects the fault for a block.
        longest: the longest duration of the block in seconds.
        targets: two faults with a common target do not happen at the same time.
        may_repeat: whether requests to providers may be repeated because of it.
    """

    name: str
    inject: Inject
    longest: float = 4.0
    targets: frozenset[str] = frozenset()
    may_repeat: bool = True


@dataclass(frozen=True)
class Drawn:
    """A fault, its duration, and the pause after its beginning, both in seconds."""

    fault: Fault
    seconds: float
    pause: float


@asynccontextmanager
async def _restarted(scene: Scene, *, name: str, how: Signals) -> AsyncIterator[None]:
    await scene.stack.until_back(name)
    await faults.restart(scene.stack, name, how)
    yield


@asynccontextmanager
async def _hanging(scene: Scene, *, name: str) -> AsyncIterator[None]:
    await scene.stack.until_back(name)
    async with faults.hanging(scene.stack, name):
        yield


@asynccontextmanager
async def _cut_off(scene: Scene) -> AsyncIterator[None]:
    async with proxying(scene.stack.ports.nats) as proxy:
        sender = await scene.stack.start("sender", nats_port=proxy.port)
        await asyncio.sleep(WARM_UP)
        proxy.cut()
        try:
            yield
        finally:
            proxy.heal()
            await sender.stop()


@asynccontextmanager
async def _additional_sender(scene: Scene, *, wrapper: Sequence[str] = ()) -> AsyncIterator[None]:
    sender = await scene.stack.start("sender", wrapper=wrapper)
    try:
        yield
    finally:
        await sender.stop()


@asynccontextmanager
async def _poisoned(scene: Scene) -> AsyncIterator[None]:
    async with faults.connected(scene.stack) as client:
        await poison.poison_streams(scene, client.jetstream())
    yield


def _restart(name: str, how: Signals) -> Fault:
    return Fault(
        name=f"{how.name} of {name}",
        inject=partial(_restarted, name=name, how=how),
        longest=1.0,
        targets=frozenset({name}),
        may_repeat=how is Signals.SIGKILL and name in {*SENDERS, NATS},
    )


def _hang(name: str) -> Fault:
    return Fault(
        name=f"SIGSTOP of {name}",
        inject=partial(_hanging, name=name),
        targets=frozenset({name}),
        may_repeat=name in {*SENDERS, NATS},
    )


def _misbehave(channel: str, behaviour: dict[str, Any]) -> Fault:
    return Fault(
        name=f"{channel} provider with {behaviour}",
        inject=lambda scene: faults.misbehaving(scene.stack, channels=[channel], **behaviour),
        targets=frozenset({channel}),
        may_repeat="latency_ms" not in behaviour,
    )


_OF_NATS = frozenset({NATS})

KINDS: tuple[tuple[Fault, ...], ...] = (
    tuple(_restart(name, Signals.SIGKILL) for name in EVERYTHING),
    tuple(_restart(name, Signals.SIGTERM) for name in SERVICES),
    tuple(_hang(name) for name in (NATS, POSTGRES, *INGESTS, *SENDERS)),
    tuple(_misbehave(channel, behaviour) for channel in CHANNELS for behaviour in faults.MISBEHAVIOURS),
    (Fault(name="full streams", inject=lambda scene: faults.full(scene.stack), targets=_OF_NATS),),
    (Fault(name="poison", inject=_poisoned, longest=1.0, targets=_OF_NATS, may_repeat=False),),
    (
        Fault(
            name="logs that nobody reads",
            inject=lambda scene: faults.unread_logs(scene.stack),
            targets=frozenset({_SUPERVISOR}),
            may_repeat=False,
        ),
        Fault(
            name="a sender with a full log device",
            inject=partial(_additional_sender, wrapper=faults.TO_FULL_DEVICE),
            may_repeat=False,
        ),
    ),
    (Fault(name="a sender that is cut off", inject=_cut_off),),
    (Fault(name="an additional sender", inject=_additional_sender, may_repeat=False),),
)
"""Each kind is drawn equally often."""


def draw(random: Random, count: int) -> list[Drawn]:
    """Draw this number of faults."""
    drawn = []
    for _ in range(count):
        fault = random.choice(random.choice(KINDS))
        drawn.append(Drawn(fault, random.uniform(0.5, fault.longest), random.uniform(0, _LONGEST_PAUSE)))
    return drawn


async def inject(drawn: Sequence[Drawn], scene: Scene) -> None:
    """Inject faults one after another, and up to three at the same time."""
    places = asyncio.Semaphore(_AT_ONCE)
    targets = {target: asyncio.Lock() for each in drawn for target in each.fault.targets}

    async def hold(each: Drawn) -> None:
        try:
            async with AsyncExitStack() as exits:
                for target in sorted(each.fault.targets):
                    await exits.enter_async_context(targets[target])
                await exits.enter_async_context(each.fault.inject(scene))
                scene.notes.append(f"{each.fault.name} for {each.seconds:.1f} s")
                await asyncio.sleep(each.seconds)
        finally:
            places.release()

    try:
        async with asyncio.TaskGroup() as group:
            for each in drawn:
                await places.acquire()
                group.create_task(hold(each))
                await asyncio.sleep(each.pause)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def compose(count: int, seed: str) -> Scenario:
    """Return a scenario with this number of faults, which the seed determines."""
    drawn = draw(Random(seed), count)

    async def play(scene: Scene) -> None:
        await asyncio.sleep(WARM_UP)
        await inject(drawn, scene)
        await asyncio.sleep(WARM_UP)

    return Scenario(
        name=f"random-{seed}",
        about=f"{count} random faults, one after another and overlapping",
        play=play,
        check=poison.check,
        disturbs=frozenset(EVERYTHING),
        settle_seconds=240,
        may_repeat=any(each.fault.may_repeat for each in drawn),
    )
