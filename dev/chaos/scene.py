"""What a scenario has at hand, and the table of all."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from statistics import median

from dev.chaos.account import Findings
from dev.chaos.load import Answer, Load
from dev.chaos.stack import Stack


@dataclass
class Scene:
    """A scenario while it is played.

    Attributes:
        is_short: whether to be done soon.
        random: seeded, so that what happened can be repeated.
        notes: what is worth telling.
        complaints: what is not as it has to be.
        letters: ids of the dead letters that there have to be.
    """

    stack: Stack
    load: Load
    is_short: bool
    random: Random
    notes: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    letters: dict[str, str] = field(default_factory=dict)

    def demand(self, condition: bool, complaint: str) -> None:  # noqa: FBT001 - reads like assert
        if not condition:
            self.complaints.append(complaint)

    def pick(self, *, short: float, full: float) -> float:
        """Choose by how much time there is."""
        return short if self.is_short else full

    def note_latency(self, when: str, answers: list[Answer]) -> None:
        seconds = [answer.seconds for answer in answers]
        if seconds:
            self.notes.append(
                f"{when}: {len(seconds)} answers, p50 {median(seconds) * 1000:.0f} ms,"
                f" slowest {max(seconds) * 1000:.0f} ms"
            )


Play = Callable[[Scene], Awaitable[None]]
Check = Callable[[Scene, Findings], None]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Something to go through.

    Attributes:
        about: in one line.
        play: injects the faults, while the load is running.
        check: looks at what was found afterwards.
        disturbs: programs that it ends.
        settings: what the services need beside the usual.
        rate: messages a second.
        settle_seconds: until everything has come to its end.
        in_short: whether it is part of the short form.
        may_repeat: whether a provider may be asked twice with the same key.
        cluster: whether NATS is three servers.
    """

    name: str
    about: str
    play: Play
    check: Check = lambda _scene, _findings: None
    disturbs: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    rate: float = 40
    settle_seconds: float = 120
    in_short: bool = True
    may_repeat: bool = True
    cluster: bool = False
