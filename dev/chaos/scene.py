"""Scenarios, and what they have access to while they are played."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median

from dev.chaos.account import Findings
from dev.chaos.load import Answer, Load
from dev.chaos.stack import Stack

WARM_UP = 1.0
"""Seconds before a fault, so that it finds the services at work."""

_IN_PROGRESS = timedelta(seconds=5)
"""A message that was accepted at least this long before a fault has already been sent."""

_IN_FLIGHT = timedelta(seconds=2)
"""A process gets no more messages this long after a fault: its requests for messages have expired."""


@dataclass
class Scene:
    """A scenario while it is played.

    Attributes:
        is_short: whether to play the short form.
        random: seeded, so that a run can be repeated.
        notes: remarks for the report.
        violations: the expectations that were not met.
        dead_letters: the reasons of the expected dead letters, by their ids.
        unreadable: ids of messages whose entries in the ledger were made unreadable.
        kills: when senders were killed.
        disorder: the times between which accepted messages may be sent out of order.
        lost: the number of messages that may be missing.
    """

    stack: Stack
    load: Load
    is_short: bool
    random: Random
    notes: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    dead_letters: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    kills: list[datetime] = field(default_factory=list)
    disorder: list[tuple[datetime, datetime]] = field(default_factory=list)
    lost: int = 0

    def expect(self, condition: bool, violation: str) -> None:  # noqa: FBT001 - reads like assert
        if not condition:
            self.violations.append(violation)

    def pick(self, *, short: float, full: float) -> float:
        """Return the value for the short or the full form."""
        return short if self.is_short else full

    def excuse_disorder(self) -> None:
        """Note that a fault happens now, and that messages in progress may be sent out of order."""
        now = datetime.now(UTC)
        self.disorder.append((now - _IN_PROGRESS, now + _IN_FLIGHT))

    def note_latency(self, when: str, answers: list[Answer]) -> None:
        seconds = [answer.seconds for answer in answers]
        if seconds:
            self.notes.append(
                f"{when}: {len(seconds)} responses, p50 {median(seconds) * 1000:.0f} ms,"
                f" slowest {max(seconds) * 1000:.0f} ms"
            )


Play = Callable[[Scene], Awaitable[None]]
Check = Callable[[Scene, Findings], None]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Faults, and what is expected of the services under them.

    Attributes:
        about: a description in one line.
        play: injects the faults while the load is running.
        check: checks the findings afterwards.
        disturbs: the programs that it ends.
        settings: settings of the services, in addition to the usual ones.
        rate: messages per second.
        settle_seconds: how long it may take until every message has reached a final status.
        in_short: whether the scenario is part of the short form.
        may_repeat: whether requests to providers may be repeated with the same idempotency key.
        may_doubt: whether messages may become dead letters because it is unknown whether their provider has
            them.
        webhooks_may_wait: whether webhooks may wait in a mock for longer than a response may take.
        cluster: whether NATS is a cluster of three servers.
        disk: the size of the disk of NATS in MiB, if it has one of its own.
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
    may_doubt: bool = False
    webhooks_may_wait: bool = False
    cluster: bool = False
    disk: int | None = None
