"""The plan that the supervisor runs, as data."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from dev.local_stack.processes import Command
from dev.local_stack.readiness import Probe


class Stage(IntEnum):
    """The order in which programs stop: the gateway, which takes requests, first; the database last."""

    GATEWAY = 0
    WORKERS = 1
    BROKER = 2
    DATABASE = 3


Preparation = Callable[[], Awaitable[None]]
"""Raises StackError."""


Diagnosis = Callable[[], Awaitable[str | None]]


async def nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check of something that was not started here.

    Attributes:
        name: of the thing that is checked.
        run: raises StackError if the check fails.
    """

    name: str
    run: Preparation


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process that is kept running.

    Attributes:
        address: the URL at which it answers.
        start_timeout: seconds that it has to become ready at the first start.
        broken: returns the reason why the running program has to be restarted, or None.
    """

    command: Command
    ready: Probe
    stage: Stage
    address: str = ""
    prepare: Preparation = nothing
    start_timeout: float = 60
    broken: Diagnosis | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The programs to start. Those of a group start together, once the group before them is ready.

    Attributes:
        checks: of things that were not started here.
        steps: commands that end by themselves, run one after the other once the servers are ready.
        log_folder: for a log of each service and each step.
    """

    checks: tuple[Check, ...] = ()
    servers: tuple[Program, ...] = ()
    steps: tuple[Command, ...] = ()
    services: tuple[Program, ...] = ()
    log_folder: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the processes."""
        programs = (*self.servers, *self.services)
        return tuple(command.name for command in (*(program.command for program in programs), *self.steps))
