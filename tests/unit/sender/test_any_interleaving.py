"""No message is lost or sent twice, whatever happens to the senders and their requests.

Nor is any message sent to a recipient who has opted out. The rules are events that can happen in any order;
afterwards, everything recovers and comes to rest.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.events import decode
from shared.ids import MessageId
from shared.lifecycle.entry import DeliveryState
from shared.message import DeliveryRequest
from shared.status import Status
from shared.suppressions import SuppressionState
from tests.unit.sender.simulation import Behaviour, World

T = TypeVar("T")

ANY = st.integers(0, 11)
"""The index of one of several, modulo their number."""

ENDS = {
    DeliveryState.SENT: Status.SENT,
    DeliveryState.FAILED: Status.FAILED,
    DeliveryState.EXPIRED: Status.EXPIRED,
}


def one(number: int, of: Sequence[T]) -> T:
    return of[number % len(of)]


class AnyInterleaving(RuleBasedStateMachine):
    world: World
    opted_out_after: int | None = None
    """The number of requests to the provider when the recipient opted out; None after an opt-in."""

    @initialize(honours_keys=st.booleans(), messages=st.integers(1, 2))
    def begin(self, *, honours_keys: bool, messages: int) -> None:
        self.world = World(honours_keys=honours_keys)
        for number in range(messages):
            self.world.accept(number)

    # --- Normal events ---

    @precondition(lambda self: self.world.deliverable())
    @rule(which=ANY, process=ANY, turns=st.integers(0, 6))
    def deliver(self, which: int, process: int, turns: int) -> None:
        to = one(process, self.world.processes)
        to.handle(one(which, self.world.deliverable()))
        self.world.let_pass()
        self.world.answer(turns, to)

    @rule(process=ANY, turns=st.integers(1, 6))
    def answer(self, process: int, turns: int) -> None:
        self.world.answer(turns, one(process, self.world.processes))

    @precondition(lambda self: self.world.in_progress())
    @rule(which=ANY)
    def answer_one(self, which: int) -> None:
        one(which, self.world.in_progress()).succeed()
        self.world.let_pass()

    @rule(seconds=st.sampled_from([1, 5, 31, 120, 601, 3_600]))
    def time_passes(self, seconds: int) -> None:
        self.world.let_pass(seconds)

    # --- Failures ---

    @precondition(lambda self: self.world.in_progress())
    @rule(which=ANY, arrived=st.booleans())
    def lose(self, which: int, *, arrived: bool) -> None:
        pending = one(which, self.world.in_progress())
        if arrived:
            pending.arrive()
        pending.lose()
        self.world.let_pass()

    @rule(process=ANY, arrived=st.booleans())
    def die(self, process: int, *, arrived: bool) -> None:
        victim = one(process, self.world.processes)
        for pending in self.world.in_progress(victim):
            if arrived:
                pending.arrive()
        victim.die()
        self.world.let_pass()

    @precondition(lambda self: self.world.on_the_wire())
    @rule(which=ANY)
    def arrive_late(self, which: int) -> None:
        one(which, self.world.on_the_wire()).arrive()

    @rule(behaviour=st.sampled_from(Behaviour))
    def provider_changes(self, behaviour: Behaviour) -> None:
        self.world.provider.behaviour = behaviour

    @rule()
    def reset_consumers(self) -> None:
        self.world.reset_consumers()

    @precondition(lambda self: self.world.replayable())
    @rule(which=ANY)
    def replay(self, which: int) -> None:
        self.world.replay(one(which, self.world.replayable()))

    @precondition(lambda self: self.world.is_quiet())
    @rule(state=st.sampled_from(SuppressionState))
    def recipient_decides(self, state: SuppressionState) -> None:
        self.world.change_suppression(state)
        self.opted_out_after = (
            len(self.world.provider.requested) if state is SuppressionState.OPTED_OUT else None
        )

    # --- Invariants ---

    @invariant()
    def nothing_is_sent_after_an_opt_out(self) -> None:
        assert self.opted_out_after in {None, len(self.world.provider.requested)}

    @invariant()
    def no_generation_of_a_message_is_sent_twice(self) -> None:
        assert all(times == 1 for times in Counter(self.world.provider.accepted).values())

    @invariant()
    def no_message_is_sent_concurrently(self) -> None:
        assert not self.world.was_asked_concurrently

    @invariant()
    def schedules_come_after_their_reports(self) -> None:
        reports = [event.data for event in self.world.reports()]
        reported = {(each.message_id, each.status, each.generation, each.attempt) for each in reports}
        for schedule in self.world.schedules():
            request = decode(schedule.payload).data
            assert isinstance(request, DeliveryRequest)
            id_, generation, attempt = request.message.id, request.generation, request.attempt
            deferred = (id_, Status.SCHEDULED, generation, attempt)
            retried = (id_, Status.RETRYING, generation, attempt - 1)
            assert (deferred if request.deferral_count else retried) in reported

    @invariant()
    def repeated_reports_are_equal(self) -> None:
        reports = self.world.reports()
        assert len({event.id for event in reports}) == len(set(map(repr, reports)))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        if self.world.provider.behaviour is Behaviour.THROTTLES:
            self.world.provider.behaviour = Behaviour.ACCEPTS  # otherwise, it would be retried for hours
        try:
            self.world.come_to_rest()
            self.no_generation_of_a_message_is_sent_twice()
            self.repeated_reports_are_equal()
            self.nothing_is_sent_after_an_opt_out()
            for request in self.world.requests():
                self._ends_once(request.message.id, request.generation)
                self._is_recorded_as_reported(request.message.id)
            self._redelivery_of_everything_changes_nothing()
        finally:
            self.world.close()

    def _ends_once(self, message_id: MessageId, generation: int) -> None:
        reports = [
            event.data
            for event in self.world.reports()
            if (event.data.message_id, event.data.generation) == (message_id, generation)
        ]
        ends = {(report.status, report.attempt) for report in reports if report.status in ENDS.values()}
        dead_letters = {
            dead_letter.id
            for dead_letter in self.world.dead_letters()
            if (dead_letter.message_id, dead_letter.generation) == (message_id, generation)
        }
        if any(status is Status.SENT for status, _ in ends):
            # The acceptance was recorded after another process had given the message up in doubt.
            assert all(report.in_doubt for report in reports if report.status is Status.FAILED)
            ends = {(status, attempt) for status, attempt in ends if status is Status.SENT}
            dead_letters = set()
        if self._was_sent_before(message_id, generation):
            assert {report.status for report in reports} == {Status.SENT}
            assert (message_id, generation) not in self.world.provider.requested
            return
        [(status, attempt)] = ends
        assert len(dead_letters) == (status in {Status.FAILED, Status.EXPIRED})
        retried = {report.attempt for report in reports if report.status is Status.RETRYING}
        assert retried - {attempt} == set(range(1, attempt))
        assert status is not Status.SENT or (message_id, generation) in self.world.provider.requested

    def _was_sent_before(self, message_id: MessageId, generation: int) -> bool:
        return any(
            event.data.message_id == message_id
            and event.data.generation < generation
            and event.data.status is Status.SENT
            for event in self.world.reports()
        )

    def _is_recorded_as_reported(self, message_id: MessageId) -> None:
        found = self.world.look_up(message_id)
        reports = [event.data for event in self.world.reports() if event.data.message_id == message_id]
        last = max(reports, key=lambda report: (report.generation, report.precedence, report.attempt))
        assert found is not None
        assert ENDS[found.value.state] is last.status

    def _redelivery_of_everything_changes_nothing(self) -> None:
        world = self.world
        requested, published = list(world.provider.requested), {event.id for event in world.published()}
        world.provider.behaviour = Behaviour.ACCEPTS
        world.reset_consumers()
        world.come_to_rest()
        assert world.provider.requested == requested
        assert {event.id for event in world.published()} == published


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
