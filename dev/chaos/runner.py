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
from dev.chaos.load import Record, running_load
from dev.chaos.scene import Scenario, Scene
from dev.chaos.stack import Stack, running_outside, running_stack
from dev.local_stack.errors import StackError

BROKEN = (
    ChaosError,
    StackError,
    nats.errors.Error,
    httpx.HTTPError,
    asyncpg.PostgresError,
    psutil.Error,
    OSError,
)
"""What a scenario may end with that could not be played to its end."""

_LONGEST_ANSWER = 5.0
_SHOWN = 5


@dataclass(frozen=True)
class Result:
    """How a scenario ended.

    Attributes:
        asked_again: how often a provider was asked with a key that it knew.
        slowest: seconds until the latest answer.
        seconds: that all of it took.
    """

    scenario: str
    lines: Sequence[Line]
    reasons: dict[str, int]
    asked_again: int
    slowest: float
    seconds: float
    notes: Sequence[str]
    complaints: Sequence[str]

    @classmethod
    def of_broken(cls, scenario: Scenario, exc: Exception) -> "Result":
        """Make the result of a scenario that could not be played to its end."""
        return cls(
            scenario=scenario.name,
            lines=[],
            reasons={},
            asked_again=0,
            slowest=0,
            seconds=0,
            notes=[],
            complaints=[f"it was not played to its end: {exc!r}"],
        )


class Runner:
    """Has a stack at hand that nothing was done to yet which the next scenario does."""

    def __init__(self, *, is_short: bool, seed: int) -> None:
        self._is_short = is_short
        self._seed = seed
        self._exits = AsyncExitStack()
        self._stack: Stack | None = None
        self._made_for: Scenario | None = None

    async def play(self, scenario: Scenario, run: int) -> Result:
        started = time.monotonic()
        stack = await self._stack_for(scenario)
        tag = f"{scenario.name}-{run}-{os.urandom(3).hex()}"
        again_before = await account.repeated_keys(stack)
        letters_before = await account.letters(stack)
        async with running_load(stack, tag, rate=scenario.rate) as load:
            scene = Scene(stack, load, self._is_short, Random(f"{self._seed}-{run}-{scenario.name}"))
            await scenario.play(scene)
        findings = await account.settle(stack, load.record, seconds=scenario.settle_seconds)
        scenario.check(scene, findings)
        again = await account.repeated_keys(stack) - again_before
        lines = account.lines(load.record, findings)
        complaints = [*scene.complaints, *_complaints(load.record, findings, lines)]
        strays = (
            findings.letters.keys() - letters_before - scene.letters.keys() - findings.letters_of_messages
        )
        if strays:
            why = Counter(findings.letters[letter] for letter in strays)
            complaints.append(f"dead letters that nobody knows of: {dict(why)}")
        if again and not scenario.may_repeat:
            complaints.append(f"providers were asked {again} times for what they had")
        if complaints:
            scene.notes.append(f"the services said: {_keep_log(stack, tag)}")
        return Result(
            scenario=scenario.name,
            lines=lines,
            reasons=dict(account.reasons(load.record, findings)),
            asked_again=again,
            slowest=max((answer.seconds for answer in load.record.answers), default=0),
            seconds=time.monotonic() - started,
            notes=scene.notes,
            complaints=complaints,
        )

    async def aclose(self) -> None:
        self._stack = None
        await self._exits.aclose()
        self._exits = AsyncExitStack()

    async def _stack_for(self, scenario: Scenario) -> Stack:
        made_for = self._made_for
        if (
            self._stack is None
            or made_for is None
            or made_for.settings != scenario.settings
            or made_for.cluster != scenario.cluster
            or not scenario.disturbs.isdisjoint(self._stack.disturbed)
        ):
            await self.aclose()
            self._stack = await self._exits.enter_async_context(_stack_of_its_own(scenario))
            self._made_for = scenario
        return self._stack


@asynccontextmanager
async def _stack_of_its_own(scenario: Scenario) -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as exits:
            outside = None
            if scenario.cluster:
                outside = await exits.enter_async_context(running_outside(Path(folder)))
            yield await exits.enter_async_context(
                running_stack(Path(folder), scenario.settings, outside=outside)
            )


def _keep_log(stack: Stack, tag: str) -> Path:
    """Copy the log to where it outlives the stack."""
    kept = Path(tempfile.gettempdir()) / f"chaos-{tag}.log"
    shutil.copyfile(stack.folder / "services.log", kept)
    return kept


def _complaints(record: Record, findings: Findings, lines: Sequence[Line]) -> list[str]:
    found = [complaint for line in lines for complaint in _complaints_of(line)]
    if findings.behind:
        found.append(f"streams stand still: {_names([f'{n} {c}' for n, c in findings.behind.items()])}")
    if record.differing:
        found.append(f"another id for the same key: {_names(record.differing)}")
    if findings.unbalanced:
        found.append(f"{findings.unbalanced} conversations have a wrong count of messages")
    if late := [answer for answer in record.answers if answer.seconds > _LONGEST_ANSWER]:
        kinds = Counter(f"{answer.kind} {answer.status or 'unanswered'}" for answer in late)
        found.append(f"{len(late)} answers took over {_LONGEST_ANSWER:g} s: {dict(kinds)}")
    if odd := [f"{answer.kind} {answer.status}" for answer in record.answers if not answer.is_in_order]:
        found.append(f"{len(odd)} unexpected answers: {_names(sorted(set(odd)))}")
    return found


def _complaints_of(line: Line) -> Iterator[str]:
    if line.missing:
        yield f"{line.name}: missing {_names([f'{item.name} ({item.id})' for item in line.missing])}"
    if line.twice:
        yield f"{line.name}: twice {_names([item.name for item in line.twice])}"
    if line.asked > line.accepted:
        yield f"{line.name}: {line.asked - line.accepted} were never accepted"
    if line.dead:
        yield f"{line.name}: {line.dead} were given up"
    if line.expired:
        yield f"{line.name}: {line.expired} expired"


def _names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
