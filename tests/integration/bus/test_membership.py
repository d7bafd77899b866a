import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from shared.bus.client import Bus, connect
from shared.bus.membership import Membership, State
from tests import infrastructure
from tests.waiting import eventually

SHARDS = [f"shard-{number}" for number in range(8)]


class Process:
    """Takes its share of the shards as the sender does."""

    def __init__(self, bus: Bus) -> None:
        self.membership = Membership(bus, "test")
        self.held: set[str] = set()
        self._announcing = asyncio.create_task(self.membership.run())
        self._assigning = asyncio.create_task(self._assign())

    async def _assign(self) -> None:
        while True:
            self.membership.changed.clear()
            share = self.membership.share_of(SHARDS)
            for shard in self.held - set(share):
                self.release(shard)
            for shard in set(share) - self.held:
                if not self.membership.is_held_by_others(shard):
                    self.held.add(shard)
                    self.membership.hold(shard)
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.membership.changed.wait()

    def release(self, shard: str) -> None:
        self.held.remove(shard)
        self.membership.release(shard)

    async def begin_to_leave(self) -> None:
        self.membership.set_state(State.LEAVING)
        await _cancel(self._assigning)

    async def stop(self) -> None:
        await self.begin_to_leave()
        await _cancel(self._announcing)
        self.held.clear()
        await self.membership.leave()

    async def die(self) -> None:
        """Stop without announcing it."""
        await _cancel(self._assigning)
        await _cancel(self._announcing)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


class Group:
    """Several processes, each with its own connection."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self.processes: list[Process] = []

    async def start(self) -> Process:
        bus = await self._stack.enter_async_context(connect(self._url, name="test"))
        await bus.until_connected()
        process = Process(bus)
        self._stack.push_async_callback(process.die)
        self.processes.append(process)
        return process

    async def until_shared(self, *by: Process) -> None:
        """Wait until these processes hold all shards, in equal shares."""

        async def is_shared() -> bool:
            sizes = [len(process.held) for process in by]
            everything = set().union(*(process.held for process in by))
            return everything == set(SHARDS) and sum(sizes) == 8 and max(sizes) - min(sizes) <= 1

        await eventually(is_shared)


@pytest.fixture
async def start_group() -> AsyncIterator[Callable[[str], Group]]:
    async with AsyncExitStack() as stack:
        yield lambda url: Group(url, stack)


StartGroup = Callable[[str], Group]


async def test_a_process_that_is_alone_takes_all_shards_immediately(
    nats_url: str, start_group: StartGroup
) -> None:
    group = start_group(nats_url)
    await group.until_shared(await group.start())


async def test_shares_are_disjoint_and_complete_as_processes_come_and_go(
    nats_url: str, start_group: StartGroup
) -> None:
    group = start_group(nats_url)
    first = await group.start()
    await group.until_shared(first)
    second = await group.start()
    await group.until_shared(first, second)
    third = await group.start()
    await group.until_shared(first, second, third)
    await first.stop()
    await group.until_shared(second, third)
    await third.stop()
    await group.until_shared(second)


async def test_processes_that_start_together_share_all_shards(nats_url: str, start_group: StartGroup) -> None:
    group = start_group(nats_url)
    processes = [await group.start() for _ in range(4)]
    await group.until_shared(*processes)


async def test_more_processes_than_shards_leave_some_idle(nats_url: str, start_group: StartGroup) -> None:
    group = start_group(nats_url)
    processes = [await group.start() for _ in range(10)]
    await group.until_shared(*processes)


async def test_a_silent_process_is_replaced(nats_url: str, start_group: StartGroup) -> None:
    group = start_group(nats_url)
    first, second = await group.start(), await group.start()
    await group.until_shared(first, second)
    await second.die()
    held = set(second.held)
    second.held.clear()
    await asyncio.sleep(1.5)
    assert not held & first.held
    await group.until_shared(first)


async def test_a_process_that_still_holds_a_shard_keeps_it_while_it_leaves(
    nats_url: str, start_group: StartGroup
) -> None:
    group = start_group(nats_url)
    first, second = await group.start(), await group.start()
    await group.until_shared(first, second)
    busy, *others = second.held
    await second.begin_to_leave()
    for shard in others:
        second.release(shard)

    async def all_but_one() -> bool:
        return first.held == set(SHARDS) - {busy}

    await eventually(all_but_one)
    await asyncio.sleep(1)
    assert busy not in first.held
    await second.stop()
    await group.until_shared(first)


async def test_processes_that_are_ready_take_over_from_one_that_is_not(
    nats_url: str, start_group: StartGroup
) -> None:
    group = start_group(nats_url)
    first, second = await group.start(), await group.start()
    await group.until_shared(first, second)
    second.membership.set_state(State.UNABLE)
    await group.until_shared(first)
    second.membership.set_state(State.TRYING)
    await group.until_shared(first, second)


async def test_shares_stay_as_they_are_while_no_process_is_ready(
    nats_url: str, start_group: StartGroup
) -> None:
    group = start_group(nats_url)
    first, second = await group.start(), await group.start()
    await group.until_shared(first, second)
    for process in (first, second):
        process.membership.set_state(State.UNABLE)
    await group.until_shared(first, second)
    held = set(first.held)
    for state in (State.TRYING, State.UNABLE) * 3:
        first.membership.set_state(state)
        await asyncio.sleep(0.1)
        assert first.held == held


async def test_processes_that_were_suspended_do_not_consider_each_other_dead(
    nats_url: str, start_group: StartGroup
) -> None:
    group = start_group(nats_url)
    processes = [await group.start() for _ in range(3)]
    await group.until_shared(*processes)
    held = [set(process.held) for process in processes]
    time.sleep(4)  # noqa: ASYNC251 - nothing runs in the meantime
    for _ in range(100):
        assert [process.held for process in processes] == held
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("seconds", [0, 4])
async def test_shares_stay_as_they_are_during_an_outage_of_nats(
    tmp_path: Path, start_group: StartGroup, seconds: float
) -> None:
    async with infrastructure.nats(tmp_path) as server:
        group = start_group(server.url)
        processes = [await group.start() for _ in range(3)]
        await group.until_shared(*processes)
        held = [set(process.held) for process in processes]

        restarts: list[Callable[[], Awaitable[None]]] = [server.kill, server.stop]
        for restart in restarts:
            await restart()
            await asyncio.sleep(seconds)
            await server.start()
            for _ in range(150):
                assert [process.held for process in processes] == held
                await asyncio.sleep(0.02)
