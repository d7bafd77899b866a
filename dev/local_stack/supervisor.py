"""Starts the programs of a plan in order, keeps them running, and stops them in order."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from dev.local_stack.errors import NotStartedError
from dev.local_stack.logs import LogFile
from dev.local_stack.processes import Child, Command, describe, run_to_end
from dev.local_stack.programs import Check, Plan, Program
from dev.local_stack.progress import Progress
from dev.local_stack.readiness import until_ready
from dev.local_stack.state import ProcessState
from dev.local_stack.terminal import Terminal

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_SETTLED_AFTER = 60.0
_LAST_OUTPUT_WITHIN = 1.0
_DIAGNOSE_EVERY = 2.0


Observer = Callable[[Sequence[ProcessState]], None]
"""Is called with the state of all processes whenever one is started or ends."""


def next_pause(previous: float | None, lived: float) -> float:
    """Return the seconds until a program is started again.

    Args:
        previous: the pause before this life of the program; None in its first.
        lived: seconds that this life lasted.
    """
    if previous is None or lived >= _SETTLED_AFTER:
        return _FIRST_PAUSE
    return min(2 * previous, _LONGEST_PAUSE)


class Output:
    """Passes the output of one process on to the terminal, and to a log if there is a folder for logs."""

    def __init__(self, name: str, terminal: Terminal, log_folder: Path | None) -> None:
        self._name = name
        self._terminal = terminal
        self._log = LogFile(log_folder, name) if log_folder else None

    def line(self, text: str) -> None:
        self.log(text)
        self._terminal.line(self._name, text)

    def log(self, text: str) -> None:
        if self._log is not None:
            self._log.write(text)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


class Keeper:
    """Keeps one program running.

    Args:
        on_change: is called when the process is started or ends.
    """

    def __init__(self, program: Program, output: Output, on_change: Callable[[], None]) -> None:
        self._program = program
        self._output = output
        self._on_change = on_change
        self._child: Child | None = None
        self._relaying: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._since = datetime.now(UTC)
        self._starts = 0

    @property
    def stage(self) -> int:
        return self._program.stage

    @property
    def name(self) -> str:
        return self._program.command.name

    @property
    def state(self) -> ProcessState:
        running = self._child is not None and self._child.status is None
        return ProcessState(
            name=self.name,
            pid=self._child.pid if self._child is not None and running else None,
            address=self._program.address,
            since=self._since,
            restarts=max(0, self._starts - 1),
        )

    async def start(self) -> None:
        """Start it, wait until it is ready, and from then on start it again whenever it ends.

        Raises:
            StackError: it did not become ready.
        """
        await self._program.prepare()
        child = self._launch()
        try:
            await until_ready(child, self._program.ready, self._program.start_timeout)
        except NotStartedError as exc:
            await child.kill()
            await self._end_relaying()
            raise NotStartedError(str(exc), child.last_lines()) from exc
        self._keeping = asyncio.create_task(self._keep(child))

    async def until_broken(self) -> None:
        """Wait for an error of this class itself, and raise it."""
        if self._keeping is not None:
            await self._keeping

    def give_up(self) -> None:
        """Stop restarting the program, without stopping it."""
        if self._keeping is not None:
            self._keeping.cancel()

    async def stop(self) -> None:
        self.give_up()
        if self._keeping is not None:
            await asyncio.wait([self._keeping])
        if self._child is not None:
            await self._child.stop()
            await self._end_relaying()
        self._output.close()

    def kill(self) -> None:
        if self._child is not None:
            self._child.signal(self._child.command.kill_signal)

    async def _keep(self, child: Child) -> None:
        pause: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            status = await self._until_ended(child)
            pause = next_pause(pause, loop.time() - self._started_at)
            await self._end_relaying()
            self._on_change()
            self._output.line(f"{describe(status)}; restarting in {pause:g} s")
            await asyncio.sleep(pause)
            child = await self._launch_when_possible()

    async def _until_ended(self, child: Child) -> int:
        """Return the exit status of the process, which is stopped if it is found broken twice in a row."""
        ended = asyncio.create_task(child.wait())
        reason = None
        try:
            while self._program.broken is not None:
                done, _ = await asyncio.wait({ended}, timeout=_DIAGNOSE_EVERY)
                if done:
                    break
                previous, reason = reason, await self._program.broken()
                if reason and previous:
                    self._output.line(f"is broken: {reason}")
                    await child.stop()
            return await ended
        finally:
            ended.cancel()

    async def _launch_when_possible(self) -> Child:
        while True:
            try:
                return self._launch()
            except OSError as exc:
                self._output.line(f"cannot be started: {exc.strerror}")
                await asyncio.sleep(_LONGEST_PAUSE)

    def _launch(self) -> Child:
        self._child = child = Child(self._program.command)
        self._started_at = asyncio.get_running_loop().time()
        self._since = datetime.now(UTC)
        self._starts += 1
        self._relaying = asyncio.create_task(child.relay(self._output.line))
        self._on_change()
        return child

    async def _end_relaying(self) -> None:
        if self._relaying is not None:
            # Wait for its last lines. A process that it started may hold its output open for longer.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._relaying, _LAST_OUTPUT_WITHIN)


class Supervisor:
    """Runs a plan. Whatever happens in between, `stop` leaves no process behind."""

    def __init__(self, plan: Plan, terminal: Terminal, observe: Observer = lambda _: None) -> None:
        self._plan = plan
        self._terminal = terminal
        self._observe = observe
        self._progress = Progress(terminal, names=[check.name for check in plan.checks] + [*plan.names])
        self._keepers: list[Keeper] = []

    async def start(self) -> None:
        """Start everything, and return when it is ready.

        Raises:
            StackError: a check failed, or a program did not start.
        """
        async with self._progress.shown():
            for check in self._plan.checks:
                await self._run_check(check)
            await self._start_together(self._plan.servers)
            for step in self._plan.steps:
                await self._run_step(step)
            await self._start_together(self._plan.services)

    async def until_broken(self) -> None:
        """Wait for an error of the supervisor itself, and raise it."""
        await _together(keeper.until_broken() for keeper in self._keepers)

    async def stop(self) -> None:
        """Stop one stage after the other, in bounded time."""
        for keeper in self._keepers:
            keeper.give_up()
        for _, stage in groupby(sorted(self._keepers, key=attrgetter("stage")), key=attrgetter("stage")):
            await asyncio.gather(*(keeper.stop() for keeper in stage))

    def kill(self) -> None:
        """End everything at once; `stop` then has nothing to wait for."""
        for keeper in self._keepers:
            keeper.give_up()
            keeper.kill()

    async def _run_check(self, check: Check) -> None:
        with self._progress.waiting_for(check.name, "checked"):
            await check.run()

    async def _start_together(self, programs: Iterable[Program]) -> None:
        keepers = [Keeper(program, self._output(program.command.name), self._report) for program in programs]
        self._keepers += keepers
        await _together(self._start(keeper) for keeper in keepers)

    async def _start(self, keeper: Keeper) -> None:
        with self._progress.waiting_for(keeper.name, "ready"):
            await keeper.start()

    async def _run_step(self, step: Command) -> None:
        output = self._output(step.name)
        with self._progress.waiting_for(step.name, "done"):
            status, last_lines = await run_to_end(step, output.log)
            output.close()
            if status != 0:
                raise NotStartedError(f"{step.name} {describe(status)}", last_lines)

    def _output(self, name: str) -> Output:
        return Output(name, self._terminal, self._plan.log_folder)

    def _report(self) -> None:
        self._observe([keeper.state for keeper in self._keepers])


async def _together(coroutines: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all; the first exception cancels the others and is raised on its own."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
