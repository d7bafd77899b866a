"""Starts the programs of a plan in order, keeps them running, and stops them in order."""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from itertools import groupby
from operator import attrgetter

from dev.local_stack.errors import NotStartedError
from dev.local_stack.processes import Child, Command, describe, run_to_end
from dev.local_stack.programs import Plan, Program
from dev.local_stack.readiness import until_ready
from dev.local_stack.terminal import Terminal

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_SETTLED_AFTER = 60.0
_LAST_OUTPUT_WITHIN = 1.0


def next_pause(previous: float | None, lived: float) -> float:
    """Seconds until a program is started again.

    Args:
        previous: the pause before this life of it; None in its first.
        lived: seconds that this life lasted.
    """
    if previous is None or lived >= _SETTLED_AFTER:
        return _FIRST_PAUSE
    return min(2 * previous, _LONGEST_PAUSE)


class Keeper:
    """Keeps one program running."""

    def __init__(self, program: Program, terminal: Terminal) -> None:
        self._program = program
        self._terminal = terminal
        self._child: Child | None = None
        self._relaying: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._started_at = 0.0

    @property
    def stage(self) -> int:
        return self._program.stage

    @property
    def _name(self) -> str:
        return self._program.command.name

    async def start(self) -> None:
        """Start it, wait until it is ready, and from then on start it again whenever it ends.

        Raises:
            StackError: it did not become ready.
        """
        await self._program.prepare()
        child = self._launch()
        try:
            await until_ready(child, self._program.ready, self._program.patience)
        except NotStartedError as exc:
            await child.kill()
            await self._end_relaying()
            raise NotStartedError(str(exc), child.last_lines()) from exc
        self._keeping = asyncio.create_task(self._keep(child))

    async def until_broken(self) -> None:
        """Returns never, unless by the exception of a mistake in here."""
        if self._keeping is not None:
            await self._keeping

    def give_up(self) -> None:
        """Let it run, but do not start it again."""
        if self._keeping is not None:
            self._keeping.cancel()

    async def stop(self) -> None:
        self.give_up()
        if self._keeping is not None:
            await asyncio.wait([self._keeping])
        if self._child is not None:
            await self._child.stop()
            await self._end_relaying()

    def kill(self) -> None:
        if self._child is not None:
            self._child.signal(self._child.command.kill_signal)

    async def _keep(self, child: Child) -> None:
        pause: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            status = await child.wait()
            pause = next_pause(pause, loop.time() - self._started_at)
            await self._end_relaying()
            self._terminal.line(self._name, f"{describe(status)}; it starts again in {pause:g} s")
            await asyncio.sleep(pause)
            child = await self._launch_when_possible()

    async def _launch_when_possible(self) -> Child:
        while True:
            try:
                return self._launch()
            except OSError as exc:
                self._terminal.line(self._name, f"cannot be started: {exc.strerror}")
                await asyncio.sleep(_LONGEST_PAUSE)

    def _launch(self) -> Child:
        self._child = child = Child(self._program.command)
        self._started_at = asyncio.get_running_loop().time()
        self._relaying = asyncio.create_task(child.relay(self._show))
        return child

    async def _end_relaying(self) -> None:
        if self._relaying is not None:
            # What it said last; its output may be held open by somebody else for longer.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._relaying, _LAST_OUTPUT_WITHIN)

    def _show(self, line: str) -> None:
        self._terminal.line(self._name, line)


class Supervisor:
    """Runs a plan. Whatever happens in between, `stop` leaves no process behind."""

    def __init__(self, plan: Plan, terminal: Terminal) -> None:
        self._plan = plan
        self._terminal = terminal
        self._keepers: list[Keeper] = []

    async def start(self) -> None:
        """Return when all of it is ready.

        Raises:
            StackError: something is not as it must be, or did not start.
        """
        for check in self._plan.checks:
            await check()
        await self._start_together(self._plan.servers)
        for step in self._plan.steps:
            await self._take(step)
        await self._start_together(self._plan.services)

    async def until_broken(self) -> None:
        """Wait for what should not happen: a mistake in here. It is raised."""
        await _together(keeper.until_broken() for keeper in self._keepers)

    async def stop(self) -> None:
        """Stop stage by stage, in bounded time."""
        for keeper in self._keepers:
            keeper.give_up()
        for _, stage in groupby(sorted(self._keepers, key=attrgetter("stage")), key=attrgetter("stage")):
            await asyncio.gather(*(keeper.stop() for keeper in stage))

    def kill(self) -> None:
        """End everything at once; `stop` then has nothing to wait for."""
        for keeper in self._keepers:
            keeper.give_up()
            keeper.kill()

    async def _start_together(self, programs: Iterable[Program]) -> None:
        keepers = [Keeper(program, self._terminal) for program in programs]
        self._keepers += keepers
        await _together(keeper.start() for keeper in keepers)

    async def _take(self, step: Command) -> None:
        status, last_lines = await run_to_end(step, lambda line: self._terminal.line(step.name, line))
        if status != 0:
            raise NotStartedError(f"{step.name} {describe(status)}", last_lines)


async def _together(coroutines: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all; the first exception cancels the others and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
