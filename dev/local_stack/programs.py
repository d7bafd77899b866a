"""What the supervisor keeps running, as data."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from dev.local_stack.processes import Command
from dev.local_stack.readiness import Probe


class Stage(IntEnum):
    """In which order programs stop: first who takes requests, last what keeps the data."""

    GATEWAY = 0
    WORKERS = 1
    BROKER = 2
    DATABASE = 3


Preparation = Callable[[], Awaitable[None]]
"""Something to be done first. Raises StackError."""


async def nothing() -> None:
    """A preparation for programs that need none."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process that is kept running.

    Attributes:
        patience: seconds that it has to become ready at the first start.
    """

    command: Command
    ready: Probe
    stage: Stage
    prepare: Preparation = nothing
    patience: float = 60


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to start. Programs of one group start together, and a group when the one before is ready.

    Attributes:
        checks: of what was not started here.
        steps: commands that end by themselves, run one after the other once the servers are ready.
    """

    checks: tuple[Preparation, ...] = ()
    servers: tuple[Program, ...] = ()
    steps: tuple[Command, ...] = ()
    services: tuple[Program, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            part.name for part in (*(p.command for p in (*self.servers, *self.services)), *self.steps)
        )
