"""The rules of delivery hold in any sequence of events.

Several processes deliver one message, step by step and in random order. Each of them may stall or die.
Requests to providers may be lost, or arrive late; the streams may be read again; the gateway may cancel or
replay the message. As there is no I/O, hundreds of thousands of steps take seconds.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from services.sender.claim import LEASE
from shared.bus.topology import LEDGER_GRACE
from shared.lifecycle.decisions import Attempt, Facts, Ignore, Publish, Record, Wait
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.lifecycle.interventions import NotCancelableError, cancellation, replay
from shared.lifecycle.policy import DeliveryPolicy, OnAmbiguous
from shared.lifecycle.sending import candidates, next_request, postponement, refusal
from shared.message import DeliveryRequest
from shared.providers.base import (
    CredentialsError,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.status import IN_DOUBT, Status
from tests import messages

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
VALIDITY = timedelta(hours=4)
DELAYS = [delay * SECOND for delay in (1, 60, 900)]
MESSAGE = messages.message(timestamp=START, created_at=START)

_PROCESSES = 3
_STEPS_OF_A_COURSE = 150
_MAX_STEPS_TO_REST = 2_000

_STATUSES = {
    DeliveryState.SENT: Status.SENT,
    DeliveryState.RETRYING: Status.RETRYING,
    DeliveryState.DEFERRED: Status.SCHEDULED,
    DeliveryState.FAILED: Status.FAILED,
    DeliveryState.EXPIRED: Status.EXPIRED,
    DeliveryState.CANCELED: Status.CANCELED,
}


@dataclass(frozen=True)
class Provider:
    name: str
    honours_idempotency_keys: bool


KEYED = Provider("keyed", honours_idempotency_keys=True)
OTHER = Provider("other", honours_idempotency_keys=False)
SELECTIONS = [[KEYED], [OTHER], [OTHER, KEYED], [KEYED, OTHER]]


@dataclass(eq=False)
class Item:
    """A message of a stream that leads to the request."""

    request: DeliveryRequest
    keeps_place: bool
    not_before: datetime
    acknowledged: bool = False


class ConflictError(Exception):
    """The ledger has changed in the meantime."""


class Course:
    """The life of one message.

    Attributes:
        accepted: the claims under which providers accepted the message as a new one.
        reports: the generation, the precedence, the attempt and the status of each report.
        outbound: the accepted request and its replays, by generation.
        due: the newest step in the stream of scheduled messages that is due.
        schedule: the time and the request of the newest step that is not due yet.
        on_the_wire: requests that arrive late, or never.
    """

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.now = START
        self.selection = chance.choice(SELECTIONS)
        self.policy = DeliveryPolicy(
            delays=DELAYS, on_ambiguous=chance.choice(list(OnAmbiguous)), random=chance
        )
        self.entry: LedgerEntry | None = None
        self.revision = 0
        self.accepted: list[LedgerEntry] = []
        self.reports: set[tuple[int, int, int, Status]] = set()
        self.dead_letters: dict[int, DeliveryRequest] = {}
        self.outbound: list[Item] = []
        self.due: Item | None = None
        self.schedule: tuple[datetime, DeliveryRequest] | None = None
        self.on_the_wire: list[LedgerEntry] = []
        self.processes: list[tuple[Item, Iterator[None]]] = []
        self.has_recovered = False
        self.has_forgotten = False
        send_at = chance.choice([None, None, START + timedelta(hours=1)])
        message = MESSAGE.model_copy(update={"send_at": send_at})
        self._accept(DeliveryRequest(message=message, expires_at=message.expiry(VALIDITY, START)))

    # --- Events ---

    def step(self) -> None:
        """Let one event happen."""
        [event] = self.chance.choices(list(_EVENTS), list(_EVENTS.values()))
        event(self)

    def start(self) -> None:
        ready = [each for each in self._unsettled() if each.not_before <= self.now]
        if ready and len(self.processes) < _PROCESSES:
            item = self.chance.choice(ready)
            self.processes.append((item, self._deliver(item)))

    def advance(self) -> None:
        if self.processes:
            item, delivery = process = self.chance.choice(self.processes)
            try:
                next(delivery)
            except StopIteration:
                self.processes.remove(process)
            except ConflictError:
                item.not_before = self.now + SECOND
                self.processes.remove(process)

    def die(self) -> None:
        if self.processes:
            self.processes.remove(self.chance.choice(self.processes))

    def time_passes(self) -> None:
        [seconds] = self.chance.choices([1, 5, 29, 120, 1_000, 5_000, 100_000], [20, 10, 10, 5, 3, 2, 1])
        self.pass_time(seconds * SECOND)

    def pass_time(self, by: timedelta) -> None:
        self.now += by
        if self.schedule and self.schedule[0] <= self.now:
            self.due = Item(self.schedule[1], keeps_place=False, not_before=self.now)
            self.schedule = None

    def arrive_late(self) -> None:
        if self.on_the_wire:
            self._receive(self.on_the_wire.pop(self.chance.randrange(len(self.on_the_wire))))

    def read_again(self) -> None:
        for item in self.outbound:
            item.acknowledged = False
        if self.due:
            self.due.acknowledged = False

    def cancel(self) -> None:
        generation = len(self.outbound) - 1
        try:
            entry = cancellation(self.entry, self._shown_status(), generation, self.now)
        except NotCancelableError:
            return
        if entry is not self.entry:
            self._write(entry, self.revision)

    def replay(self) -> None:
        generation = len(self.outbound) - 1
        sent = any(status is Status.SENT and of == generation for of, _, _, status in self.reports)
        failed = self.outbound[-1].request if sent else self.dead_letters.get(generation)
        if failed and not self.has_forgotten:
            self._accept(replay(failed, VALIDITY, self.now))

    def forget(self) -> None:
        """Drop the entry from the ledger when no request can be sent any more."""
        is_quiet = not (self.processes or self.on_the_wire)
        if is_quiet and all(item.request.expires_at + LEDGER_GRACE < self.now for item in self.outbound):
            self.entry, self.revision, self.has_forgotten = None, self.revision + 1, True

    # --- The sender ---

    def _deliver(self, item: Item) -> Iterator[None]:
        """Act as a sender, which may stall or die at each `yield`."""
        found, revision = self.entry, self.revision
        yield
        facts = Facts(
            lease=LEASE,
            connected_for=timedelta(days=1),
            honouring_keys={KEYED.name},
            keeps_place=item.keeps_place,
        )
        match self.policy.decide(found, item.request, self.now, facts):
            case Ignore():
                item.acknowledged = True
                return
            case Wait(until):
                item.not_before = until
                return
            case Publish(request, entry):
                yield from self._publish(item, request, entry)
                return
            case Record(request, entry):
                pass
            case Attempt(request, in_doubt_at):
                self._check_lease(found, request)
                entry, revision = yield from self._try_providers(request, in_doubt_at, revision, facts)
        try:
            self._write(entry, revision)
        except ConflictError:
            correction = self.entry and entry.correct(self.entry)
            if not correction:
                raise
            self._write(correction, self.revision)
            entry = correction
        if entry.state is DeliveryState.RELEASED:
            item.not_before = self.now + SECOND
            return
        yield
        yield from self._publish(item, request, entry)

    def _try_providers(
        self, request: DeliveryRequest, in_doubt_at: str | None, revision: int, facts: Facts
    ) -> Generator[None, None, tuple[LedgerEntry, int]]:
        asked = next((each for each in (KEYED, OTHER) if each.name == in_doubt_at), None)
        postponed: list[LedgerEntry] = []
        for provider in candidates(self.selection, asked):
            claim = LedgerEntry.of(
                request, DeliveryState.CLAIMED, self.now, provider=provider.name, in_doubt_at=in_doubt_at
            )
            refused = refusal(request, claim, None)
            if refused is None and self._is_available():
                yield
                revision = self._write(claim, revision)
                yield
                entry = self._ask(request, claim, facts)
                yield
            else:
                until = self.now + 30 * SECOND
                entry = refused or self.policy.deferral(request, claim, self.now, not_before=until)
            if not entry.is_postponed:
                return entry, revision
            postponed.append(entry)
        return postponement(postponed), revision

    def _is_available(self) -> bool:
        return self.has_recovered or self.chance.random() < 0.9

    def _ask(self, request: DeliveryRequest, claim: LedgerEntry, facts: Facts) -> LedgerEntry:
        failure = None if self.has_recovered else self.chance.choice(_FAILURES)
        if failure is None:
            self._receive(claim)
            return claim.becomes(DeliveryState.SENT, self.now)
        if isinstance(failure, UnknownOutcomeError):
            if self.chance.random() < 0.5:
                self._receive(claim)
            else:
                self.on_the_wire.append(claim)
        entry = self.policy.after_failure(request, claim, failure, self.now, facts)
        assert entry.is_postponed or isinstance(failure, UnknownOutcomeError) or not failure.throttled
        return entry

    def _publish(self, item: Item, request: DeliveryRequest, entry: LedgerEntry) -> Iterator[None]:
        step = request.step if request.generation > entry.step.generation else entry.step
        status = _STATUSES[entry.state]
        in_doubt = entry.state is DeliveryState.FAILED and entry.in_doubt_at
        precedence = IN_DOUBT if in_doubt else status.precedence
        self.reports.add((step.generation, precedence, step.attempt, status))
        yield
        match entry.state:
            case DeliveryState.RETRYING | DeliveryState.DEFERRED:
                self.schedule = entry.due or self.now, next_request(request, entry)
            case DeliveryState.FAILED:
                self.dead_letters[request.generation] = request
            case DeliveryState.EXPIRED if entry.at < request.expires_at + LEDGER_GRACE:
                self.dead_letters[request.generation] = request
        yield
        item.acknowledged = True

    # --- The other side ---

    def _accept(self, request: DeliveryRequest) -> None:
        self.outbound.append(Item(request, keeps_place=True, not_before=self.now))

    def _unsettled(self) -> list[Item]:
        items = [*self.outbound, *([self.due] if self.due else [])]
        return [item for item in items if not item.acknowledged]

    def _shown_status(self) -> Status:
        accepted = (len(self.outbound) - 1, Status.ACCEPTED.precedence, 0, Status.ACCEPTED)
        return max({*self.reports, accepted}, key=lambda report: report[:3])[3]

    def _receive(self, claim: LedgerEntry) -> None:
        """Accept the message as a provider."""
        assert self.entry is None or self.entry.state is not DeliveryState.CANCELED
        assert not self.has_forgotten
        is_repeated = any(known.provider == claim.provider for known in self.accepted)
        if not (is_repeated and claim.provider == KEYED.name):
            self.accepted.append(claim)

    def _write(self, entry: LedgerEntry, revision: int) -> int:
        """Write an entry if none was written since `revision`."""
        if revision != self.revision:
            raise ConflictError
        if self.entry is not None:
            self._check_transition(self.entry, entry)
        self.entry = entry
        self.revision += 1
        return self.revision

    # --- Promises ---

    def _check_lease(self, claim: LedgerEntry | None, request: DeliveryRequest) -> None:
        """Check that no other process can be taking the step."""
        if claim and claim.state is DeliveryState.CLAIMED and claim.step == request.step:
            assert claim.at + LEASE <= self.now

    def _check_transition(self, before: LedgerEntry, after: LedgerEntry) -> None:
        assert after.step >= before.step
        assert after.step.attempt <= len(DELAYS) + 1
        assert before.state is not DeliveryState.CANCELED
        if after.step.generation == before.step.generation:
            assert before.state is not DeliveryState.SENT
            if before.state.ends_generation:
                assert before.in_doubt_at
                assert after.state is DeliveryState.SENT
            if before.state is DeliveryState.RELEASED:
                assert after.step == before.step
        if after.state is DeliveryState.CANCELED:
            assert not self.accepted

    def check(self) -> None:
        assert sum(claim.in_doubt_at is None for claim in self.accepted) <= 1
        if self.policy.on_ambiguous is OnAmbiguous.FAIL:
            assert all(n == 1 for n in Counter(claim.step.generation for claim in self.accepted).values())
        if self.selection == [KEYED]:
            assert len(self.accepted) <= 1
        if any(status is Status.SENT for *_, status in self.reports) and len(self.outbound) == 1:
            assert self._shown_status() is Status.SENT

    def come_to_rest(self) -> int:
        """Deliver everything, and return the number of steps."""
        self.has_recovered = True
        for step in range(_MAX_STEPS_TO_REST):
            if self.processes:
                self.advance()
            elif any(item.not_before <= self.now for item in self._unsettled()):
                self.start()
            elif self._unsettled() or self.schedule:
                moments = [item.not_before for item in self._unsettled()]
                moments += [self.schedule[0]] if self.schedule else []
                self.pass_time(min(moments) - self.now)
            else:
                return step
            self.check()
        raise AssertionError("the message does not come to rest")

    def check_end(self) -> None:
        generation = len(self.outbound) - 1
        ends = {status for of, _, _, status in self.reports if of == generation}
        if self.has_forgotten:
            assert ends & {Status.SENT, Status.FAILED, Status.EXPIRED, Status.CANCELED}
            return
        assert self.entry is not None
        assert self.entry.state.ends_generation
        assert _STATUSES[self.entry.state] in ends
        assert (self.entry.state is DeliveryState.FAILED) <= (generation in self.dead_letters)
        if self.entry.state is DeliveryState.SENT:
            assert self.accepted


_FAILURES: list[ProviderError | None] = [
    None,
    TemporaryError("http_425", ""),
    TemporaryError("http_429", "", retry_after=10 * SECOND, throttled=True),
    TemporaryError("http_429", "", throttled=True),
    UnknownOutcomeError("timeout", ""),
    UnknownOutcomeError("http_503", "", throttled=True),
    CredentialsError("http_401", ""),
    RejectedError("http_400", ""),
]

_EVENTS: dict[Callable[[Course], None], int] = {
    Course.advance: 120,
    Course.start: 50,
    Course.time_passes: 30,
    Course.die: 5,
    Course.arrive_late: 3,
    Course.read_again: 3,
    Course.cancel: 2,
    Course.replay: 4,
    Course.forget: 2,
}
"""The events and how often they happen."""


@pytest.mark.parametrize("seed", range(16))
def test_any_course_keeps_the_promises(seed: int) -> None:
    chance = Random(seed)
    steps = 0
    while steps < 20_000:
        course = Course(chance)
        for _ in range(_STEPS_OF_A_COURSE):
            course.step()
            course.check()
        steps += _STEPS_OF_A_COURSE + course.come_to_rest()
        course.check_end()
