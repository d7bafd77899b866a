"""Whatever happens to the senders and to what they ask, a message is neither lost nor sent twice.

Nor is one sent to who has opted out. The rules are what can happen, in any order; afterwards everything works
again and comes to rest.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.events import SuppressionState, DeliveryDue, decode
from shared.ids import MessageId
from shared.ledger import State
from shared.lifecycle import Status
from tests.unit.sender.simulation import Behaviour, World

T = TypeVar("T")

ANY = st.integers(0, 11)
"""Which of several."""

ENDS = {State.SENT: Status.SENT, State.FAILED: Status.FAILED, State.EXPIRED: Status.EXPIRED}


def one(number: int, of: Sequence[T]) -> T:
    return of[number % len(of)]


class AnyCourse(RuleBasedStateMachine):
    world: World
    opted_out_after: int | None = None
    """How often the provider had been asked when the recipient opted out, unless they are in again."""

    @initialize(honours_keys=st.booleans(), messages=st.integers(1, 2))
    def begin(self, *, honours_keys: bool, messages: int) -> None:
        self.world = World(honours_keys=honours_keys)
        for number in range(messages):
            self.world.accept(number)

    # --- What should happen ---

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

    @precondition(lambda self: self.world.under_way())
    @rule(which=ANY)
    def answer_one(self, which: int) -> None:
        one(which, self.world.under_way()).succeed()
        self.world.let_pass()

    @rule(seconds=st.sampled_from([1, 5, 31, 120, 601, 3_600]))
    def time_passes(self, seconds: int) -> None:
        self.world.let_pass(seconds)

    # --- What should not ---

    @precondition(lambda self: self.world.under_way())
    @rule(which=ANY, arrived=st.booleans())
    def lose(self, which: int, *, arrived: bool) -> None:
        asked = one(which, self.world.under_way())
        if arrived:
            asked.arrive()
        asked.lose()
        self.world.let_pass()

    @rule(process=ANY, arrived=st.booleans())
    def die(self, process: int, *, arrived: bool) -> None:
        victim = one(process, self.world.processes)
        for asked in self.world.under_way(victim):
            if arrived:
                asked.arrive()
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
        self.world.change_consent(state)
        self.opted_out_after = len(self.world.provider.asked) if state is SuppressionState.OPTED_OUT else None

    # --- What holds ---

    @invariant()
    def who_has_opted_out_is_sent_nothing(self) -> None:
        assert self.opted_out_after in {None, len(self.world.provider.asked)}

    @invariant()
    def no_round_of_a_message_is_sent_twice(self) -> None:
        assert all(times == 1 for times in Counter(self.world.provider.accepted).values())

    @invariant()
    def the_provider_is_asked_once_at_a_time(self) -> None:
        assert not self.world.asked_twice

    @invariant()
    def what_leads_on_comes_after_the_report(self) -> None:
        reports = [event.data for event in self.world.statuses()]
        told = {(each.message_id, each.status, each.generation, each.attempt) for each in reports}
        for schedule in self.world.schedules():
            due = decode(schedule.payload)
            assert isinstance(due, DeliveryDue)
            id_, generation, attempt = due.data.message.id, due.data.generation, due.data.attempt
            deferred = (id_, Status.SCHEDULED, generation, attempt)
            retried = (id_, Status.RETRYING, generation, attempt - 1)
            assert (deferred if due.data.deferral_count else retried) in told

    @invariant()
    def what_is_told_again_is_the_same(self) -> None:
        told = self.world.statuses()
        assert len({event.id for event in told}) == len(set(map(repr, told)))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.come_to_rest()
            self.no_round_of_a_message_is_sent_twice()
            self.what_is_told_again_is_the_same()
            self.who_has_opted_out_is_sent_nothing()
            for request in self.world.requests():
                self._ends_once(request.message.id, request.generation)
                self._is_recorded_as_it_was_told(request.message.id)
            self._telling_all_again_changes_nothing()
        finally:
            self.world.close()

    def _ends_once(self, message_id: MessageId, generation: int) -> None:
        reports = [
            event.data
            for event in self.world.statuses()
            if (event.data.message_id, event.data.generation) == (message_id, generation)
        ]
        ends = {(report.status, report.attempt) for report in reports if report.status in ENDS.values()}
        letters = {
            event.id
            for event in self.world.dead_letters()
            if (event.data.message_id, event.data.generation) == (message_id, generation)
        }
        if self._was_sent_before(message_id, generation):
            assert {report.status for report in reports} == {Status.SENT}
            assert (message_id, generation) not in self.world.provider.asked
            return
        [(status, attempt)] = ends
        assert len(letters) == (status is Status.FAILED)
        retried = {report.attempt for report in reports if report.status is Status.RETRYING}
        assert retried == set(range(1, attempt))
        assert status is not Status.SENT or (message_id, generation) in self.world.provider.asked

    def _was_sent_before(self, message_id: MessageId, generation: int) -> bool:
        return any(
            event.data.message_id == message_id
            and event.data.generation < generation
            and event.data.status is Status.SENT
            for event in self.world.statuses()
        )

    def _is_recorded_as_it_was_told(self, message_id: MessageId) -> None:
        record = self.world.recorded(message_id)
        told = [event.data for event in self.world.statuses() if event.data.message_id == message_id]
        last = max(told, key=lambda report: (report.generation, report.status.precedence, report.attempt))
        assert record is not None
        assert ENDS[record.entry.state] is last.status

    def _telling_all_again_changes_nothing(self) -> None:
        world = self.world
        asked, told = list(world.provider.asked), {event.id for event in world.told()}
        world.provider.behaviour = Behaviour.ACCEPTS
        world.reset_consumers()
        world.come_to_rest()
        assert world.provider.asked == asked
        assert {event.id for event in world.told()} == told


TestAnyCourse = AnyCourse.TestCase
TestAnyCourse.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
