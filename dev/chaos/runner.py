"""Plays scenarios one after the other, and judges each by its account."""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import asyncpg
import httpx
import nats.errors
import psutil

from dev.chaos import account
from dev.chaos.account import Findings, Line
from dev.chaos.errors import ChaosError
from dev.chaos.faults import small_disk
from dev.chaos.load import Record, running_load
from dev.chaos.outside import running_outside
from dev.chaos.scene import Scenario, Scene
from dev.chaos.stack import NATS, Stack, running_stack
from dev.local_stack.errors import StackError

ABORTING = (
    ChaosError,
    StackError,
    nats.errors.Error,
    httpx.HTTPError,
    asyncpg.PostgresError,
    psutil.Error,
    OSError,
)
"""The errors that abort a scenario."""

_LONGEST_RESPONSE = 5.0
_SHOWN = 5
_IN_DOUBT = "ambiguous"
"""The reason of a dead letter if it is not known whether the provider has the message."""


@dataclass(frozen=True)
class Result:
    """The result of a scenario.

    Attributes:
        failures: number of dead-lettered messages by reason.
        repeated: number of requests to providers with an idempotency key that they already knew.
        slowest: seconds that the slowest response took.
        seconds: duration of the scenario.
        violations: the expectations that were not met.
    """

    scenario: str
    lines: Sequence[Line]
    failures: dict[str, int]
    repeated: int
    slowest: float
    seconds: float
    notes: Sequence[str]
    violations: Sequence[str]

    @classmethod
    def of_aborted(cls, scenario: Scenario, exc: Exception, notes: Sequence[str]) -> "Result":
        """Create the result of a scenario that an error has aborted."""
        return cls(
            scenario=scenario.name,
            lines=[],
            failures={},
            repeated=0,
            slowest=0,
            seconds=0,
            notes=notes,
            violations=[f"the scenario was aborted: {exc!r}"],
        )


class Runner:
    """Plays scenarios on a stack, which is replaced when a scenario needs another one."""

    def __init__(self, *, is_short: bool, seed: int) -> None:
        self._is_short = is_short
        self._seed = seed
        self._exits = AsyncExitStack()
        self._stack: Stack | None = None
        self._started_for: Scenario | None = None

    async def play(self, scenario: Scenario, run: int) -> Result:
        started = time.monotonic()
        stack = await self._stack_for(scenario)
        tag = f"{scenario.name}-{run}-{os.urandom(3).hex()}"
        repeated_before = await account.repeated_keys(stack)
        dead_letters_before = await account.dead_letters(stack)
        async with running_load(stack, tag, rate=scenario.rate) as load:
            scene = Scene(stack, load, self._is_short, Random(f"{self._seed}-{run}-{scenario.name}"))
            await scenario.play(scene)
        findings = await account.settle(stack, load.record, seconds=scenario.settle_seconds)
        scenario.check(scene, findings)
        repeated = await account.repeated_keys(stack) - repeated_before
        lines = account.lines(load.record, findings)
        violations = [*scene.violations, *_violations(load.record, findings, lines, scene.lost)]
        violations += _late_responses(load.record, exempt="webhook" if scenario.webhooks_may_wait else None)
        failures = account.failures(load.record, findings)
        allowed = {_IN_DOUBT} if scenario.may_doubt else set()
        if failures.keys() - allowed:
            violations.append(f"messages were dead-lettered: {dict(failures)}")
        unexplained = (
            findings.dead_letters.keys()
            - dead_letters_before
            - scene.dead_letters.keys()
            - findings.dead_letters_of_messages
        )
        if unexplained:
            reasons = Counter(findings.dead_letters[id_] for id_ in unexplained)
            violations.append(f"unexplained dead letters: {dict(reasons)}")
        if repeated and not scenario.may_repeat:
            violations.append(f"{repeated} requests to providers were repeated")
        if violations:
            scene.notes.append(f"log of the services: {_keep_log(stack, tag)}")
        return Result(
            scenario=scenario.name,
            lines=lines,
            failures=dict(failures),
            repeated=repeated,
            slowest=max((answer.seconds for answer in load.record.answers), default=0),
            seconds=time.monotonic() - started,
            notes=scene.notes,
            violations=violations,
        )

    async def abort(self, scenario: Scenario, run: int, exc: Exception) -> Result:
        """Give up a scenario and its stack, and return the result."""
        notes = []
        if self._stack is not None:
            log = _keep_log(self._stack, f"{scenario.name}-{run}-{os.urandom(3).hex()}")
            notes.append(f"log of the services: {log}")
        await self.aclose()
        return Result.of_aborted(scenario, exc, notes)

    async def aclose(self) -> None:
        self._stack = None
        await self._exits.aclose()
        self._exits = AsyncExitStack()

    async def _stack_for(self, scenario: Scenario) -> Stack:
        """Return the current stack if the scenario can use it, otherwise a new one.

        The supervisor waits longer before each restart of a program. A program that was ended once therefore
        cannot be ended by another scenario.
        """
        before = self._started_for
        if (
            self._stack is None
            or before is None
            or before.settings != scenario.settings
            or (before.cluster, before.disk) != (scenario.cluster, scenario.disk)
            or not scenario.disturbs.isdisjoint(self._stack.disturbed)
        ):
            await self.aclose()
            self._stack = await self._exits.enter_async_context(_new_stack(scenario))
            self._started_for = scenario
        return self._stack


@asynccontextmanager
async def _new_stack(scenario: Scenario) -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as exits:
            outside = None
            if scenario.cluster:
                outside = await exits.enter_async_context(running_outside(Path(folder)))
            if scenario.disk:
                await exits.enter_async_context(small_disk(Path(folder) / ".data" / NATS, scenario.disk))
            yield await exits.enter_async_context(
                running_stack(Path(folder), scenario.settings, outside=outside)
            )


def _keep_log(stack: Stack, tag: str) -> Path:
    """Copy the log to a file that outlives the stack."""
    kept = Path(tempfile.gettempdir()) / f"chaos-{tag}.log"
    shutil.copyfile(stack.folder / "services.log", kept)
    return kept


def _violations(record: Record, findings: Findings, lines: Sequence[Line], lost: int) -> list[str]:
    found = [violation for line in lines for violation in _violations_of(line)]
    missing = [f"{item.name} ({item.id})" for line in lines for item in line.missing]
    if len(missing) > lost:
        found.append(
            f"{len(missing)} messages are missing{f' instead of {lost}' if lost else ''}: {_names(missing)}"
        )
    if findings.backlog:
        found.append(f"unread messages: {_names([f'{n} {c}' for n, c in findings.backlog.items()])}")
    if record.differing:
        found.append(f"another id for the same key: {_names(record.differing)}")
    if findings.miscounted:
        found.append(f"{findings.miscounted} conversations have a wrong count of messages")
    if unexpected := [
        f"{answer.kind} {answer.status}" for answer in record.answers if not answer.is_expected
    ]:
        found.append(f"{len(unexpected)} unexpected responses: {_names(sorted(set(unexpected)))}")
    return found


def _late_responses(record: Record, *, exempt: str | None) -> Iterator[str]:
    late = [
        answer for answer in record.answers if answer.seconds > _LONGEST_RESPONSE and answer.kind != exempt
    ]
    if late:
        kinds = Counter(f"{answer.kind} {answer.status or 'unanswered'}" for answer in late)
        yield f"{len(late)} responses took longer than {_LONGEST_RESPONSE:g} s: {dict(kinds)}"


def _violations_of(line: Line) -> Iterator[str]:
    if line.duplicates:
        yield f"{line.name}: sent more than once: {_names([item.name for item in line.duplicates])}"
    if line.requested > line.accepted:
        yield f"{line.name}: {line.requested - line.accepted} were never accepted"
    if line.expired:
        yield f"{line.name}: {line.expired} expired"


def _names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
