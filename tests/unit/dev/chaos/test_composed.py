import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import cast

import pytest

from dev.chaos.composed import KINDS, Drawn, Fault, compose, draw, inject
from dev.chaos.errors import ChaosError
from dev.chaos.load import Load
from dev.chaos.scene import Scene
from dev.chaos.stack import Stack
from tests.virtual_time import VirtualTimeLoop


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop()
    yield loop
    loop.close()


class Present:
    """The faults that are present, and the names of those that were present together."""

    def __init__(self) -> None:
        self._now: list[str] = []
        self.together: list[frozenset[str]] = []

    @asynccontextmanager
    async def inject(self, _scene: Scene, *, name: str) -> AsyncIterator[None]:
        self._now.append(name)
        self.together.append(frozenset(self._now))
        try:
            yield
        finally:
            self._now.remove(name)

    def fault(self, name: str, *targets: str) -> Fault:
        return Fault(name=name, inject=partial(self.inject, name=name), targets=frozenset(targets))


def scene() -> Scene:
    return Scene(cast(Stack, None), cast(Load, None), is_short=True, random=Random(1))


def test_the_seed_determines_the_faults() -> None:
    assert draw(Random("7-0"), 50) == draw(Random("7-0"), 50)
    assert draw(Random("7-0"), 50) != draw(Random("7-1"), 50)


def test_every_fault_is_drawn_some_time() -> None:
    drawn = {each.fault.name for each in draw(Random(1), 2_000)}
    assert drawn == {fault.name for kind in KINDS for fault in kind}


def test_no_more_than_three_faults_are_present_at_the_same_time(loop: VirtualTimeLoop) -> None:
    present = Present()
    drawn = [Drawn(present.fault(str(number)), 10, 1) for number in range(9)]
    faulty = scene()
    loop.run_until_complete(inject(drawn, faulty))
    assert max(map(len, present.together)) == 3
    assert len(faulty.notes) == 9


def test_faults_of_one_target_follow_one_another(loop: VirtualTimeLoop) -> None:
    present = Present()
    faults = [present.fault("a", "nats"), present.fault("b", "nats", "sms"), present.fault("c", "email")]
    loop.run_until_complete(inject([Drawn(fault, 10, 0) for fault in faults], scene()))
    assert present.together == [{"a"}, {"a", "c"}, {"b"}]


def test_a_fault_that_cannot_be_injected_ends_the_others(loop: VirtualTimeLoop) -> None:
    @asynccontextmanager
    async def fail(_scene: Scene) -> AsyncIterator[None]:
        await asyncio.sleep(1)
        raise ChaosError("it is not running")
        yield

    present = Present()
    drawn = [Drawn(present.fault("a"), 100, 0), Drawn(Fault(name="b", inject=fail), 1, 0)]
    with pytest.raises(ChaosError, match="it is not running"):
        loop.run_until_complete(inject(drawn, scene()))
    assert loop.time() < 10


def test_requests_may_be_repeated_if_a_fault_allows_it() -> None:
    scenarios = [compose(1, f"{seed}-0") for seed in range(100)]
    drawn = [draw(Random(f"{seed}-0"), 1) for seed in range(100)]
    assert [scenario.may_repeat for scenario in scenarios] == [each.fault.may_repeat for [each] in drawn]
    assert {scenario.may_repeat for scenario in scenarios} == {True, False}
