"""Single deliveries in which rare events coincide."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from services.sender.claim import LEASE
from shared.bus.topology import KEY_RETENTION, LEDGER_GRACE, Stream
from shared.lifecycle.entry import DeliveryState
from shared.status import Status
from tests.unit.sender.simulation import START, VALIDITY, Behaviour, PendingRequest, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World(honours_keys=True)
    world.accept(0)
    yield world
    world.close()


def test_an_attempt_that_is_deferred_for_hours_is_reported_once(world: World) -> None:
    world.provider.behaviour = Behaviour.REJECTS_CREDENTIALS
    world.come_to_rest()

    assert world.statuses() == [Status.SCHEDULED, Status.EXPIRED]


def test_a_throttled_message_keeps_its_place_and_uses_up_no_attempt(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.unsettled()
    world.provider.behaviour = Behaviour.THROTTLES
    for process in (first, second):
        process.handle(step)
        world.let_pass()
        world.answer(7)
        assert world.unsettled() == [step]
        assert world.statuses() == [Status.RETRYING]
        world.let_pass(1)  # less than the lease of a claim
    assert len(world.provider.requested) == 2

    world.provider.behaviour = Behaviour.ACCEPTS
    world.come_to_rest()
    reported = [(event.data.status, event.data.attempt) for event in world.reports()]
    assert reported == [(Status.RETRYING, 1), (Status.SENT, 1)]


def test_a_throttled_retry_is_deferred_and_uses_up_no_attempt(world: World) -> None:
    first, *_ = world.processes
    world.provider.behaviour = Behaviour.FAILS
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(7)
    world.let_pass(2)
    world.provider.behaviour = Behaviour.THROTTLES
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(7)
    world.provider.behaviour = Behaviour.ACCEPTS
    world.come_to_rest()

    reports = [(event.data.status, event.data.attempt) for event in world.reports()]
    assert reports == [(Status.RETRYING, 1), (Status.SCHEDULED, 2), (Status.SENT, 2)]


def test_an_acceptance_that_is_recorded_after_the_expiry_counts(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, request
    world.let_pass(VALIDITY.total_seconds())
    second.handle(step)
    world.let_pass()
    world.answer(7, second)
    assert world.statuses() == [Status.EXPIRED]
    world.come_to_rest()

    assert world.statuses() == [Status.EXPIRED, Status.SENT]
    found = world.look_up(world.requests()[0].message.id)
    assert found is not None
    assert found.value.state is DeliveryState.SENT
    [dead_letter] = world.dead_letters()
    assert dead_letter.request
    world.replay(dead_letter.request)
    world.come_to_rest()
    assert len(world.provider.requested) == 1


def test_a_message_that_is_repeated_as_long_as_its_key_is_remembered_is_sent_once(world: World) -> None:
    world.come_to_rest()
    world.let_pass(KEY_RETENTION.total_seconds())
    world.accept(0)
    world.come_to_rest()

    assert len(world.server.messages(Stream.OUTBOUND)) == 2
    assert len(world.provider.requested) == 1


def test_an_expired_message_can_be_replayed(world: World) -> None:
    world.let_pass(VALIDITY.total_seconds())
    world.come_to_rest()
    assert world.provider.requested == []
    [dead_letter] = world.dead_letters()
    assert (dead_letter.reason, dead_letter.errors) == ("expired", [])
    assert dead_letter.request
    world.replay(dead_letter.request)
    world.come_to_rest()

    assert world.statuses() == [Status.EXPIRED, Status.SENT]


def test_a_message_that_the_ledger_may_have_forgotten_cannot_be_replayed(world: World) -> None:
    world.let_pass((VALIDITY + LEDGER_GRACE).total_seconds())
    world.come_to_rest()

    assert world.statuses() == [Status.EXPIRED]
    assert world.dead_letters() == []


def test_an_acceptance_is_recorded_however_often_nats_is_unavailable(world: World) -> None:
    first, *_ = world.processes
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, request
    for _ in range(10):
        world.let_pass(10)
    world.come_to_rest()

    assert world.statuses() == [Status.SENT]
    assert len(world.provider.requested) == 1


def test_a_process_with_an_unrecorded_result_has_time_to_record_it_after_an_outage(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, request
    while world.now() < START + timedelta(seconds=40):
        world.let_pass(1)
    world.connected_since = world.now()
    second.handle(step)
    world.let_pass()
    world.answer(7, second)
    world.come_to_rest()

    assert len(world.provider.requested) == 1
    assert world.statuses() == [Status.SENT]


def test_no_other_process_sends_a_message_that_is_being_sent(world: World) -> None:
    first, second, _ = world.processes
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(3)  # look-up, suppressions, claim
    second.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(7, second)

    assert [pending.by for pending in world.in_progress()] == [first]
    world.come_to_rest()
    assert len(world.provider.requested) == 1


@pytest.fixture
def without_keys() -> Iterator[World]:
    world = World(honours_keys=False)
    world.accept(0)
    yield world
    world.close()


def test_an_acceptance_corrects_a_message_that_was_given_up_in_doubt(without_keys: World) -> None:
    world = without_keys
    first, second, _ = world.processes
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, request; the result cannot be recorded
    world.let_pass(31)
    second.handle(step)
    world.let_pass()
    world.answer(7, second)
    assert [event.data.in_doubt for event in world.reports()] == [True]
    world.come_to_rest()
    assert world.statuses() == [Status.FAILED, Status.SENT]

    [dead_letter] = world.dead_letters()
    assert dead_letter.request
    world.replay(dead_letter.request)
    world.come_to_rest()
    assert len(world.provider.requested) == 1
    assert world.statuses() == [Status.FAILED, Status.SENT, Status.SENT]


def test_an_acceptance_corrects_the_failure_of_a_process_that_took_over(world: World) -> None:
    first, second, _ = world.processes
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, request
    world.let_pass(31)
    world.provider.behaviour = Behaviour.REJECTS
    second.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(7, second)
    assert world.statuses() == [Status.FAILED]
    world.come_to_rest()

    assert world.statuses() == [Status.FAILED, Status.SENT]


def test_a_late_schedule_that_replaces_a_newer_one_loses_nothing(world: World) -> None:
    """After all senders were down for longer than ids are remembered, an old step races with the next."""
    first, second, third = world.processes
    world.provider.behaviour = Behaviour.FAILS
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(6)  # all but the schedule
    [schedule] = world.in_progress()
    schedule.arrive()
    first.die()
    world.let_pass(601)

    old_step, next_step = world.unsettled()
    second.handle(old_step)
    world.let_pass()
    world.answer(2)  # look-up, report
    [late] = world.in_progress()
    third.handle(next_step)
    world.let_pass()
    world.answer(7, except_for=late)
    [newer] = world.schedules()
    late.succeed()
    world.let_pass()
    assert newer not in world.schedules()

    world.provider.behaviour = Behaviour.ACCEPTS
    world.come_to_rest()
    found = world.look_up(world.requests()[0].message.id)
    assert found is not None
    assert found.value.state is DeliveryState.SENT


@pytest.fixture
def late(world: World) -> PendingRequest:
    """Return the schedule of the second attempt, still in progress when the third one has been scheduled."""
    first, second, third = world.processes
    world.provider.behaviour = Behaviour.FAILS
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(6)  # all but the schedule
    [late] = world.in_progress()
    world.let_pass(5)  # the request times out, and the step is delivered again
    second.handle(step)
    world.let_pass()
    world.answer(7, second)
    world.let_pass(2)
    [next_step] = world.unsettled()
    third.handle(next_step)
    world.let_pass()
    world.answer(7)
    return late


def test_a_schedule_that_arrives_several_steps_late_loses_nothing(world: World, late: PendingRequest) -> None:
    first, *_ = world.processes
    world.let_pass(75)
    [last_step] = world.unsettled()
    first.handle(last_step)
    world.let_pass()
    world.answer(7)
    [newer] = world.schedules()
    late.arrive()
    assert newer not in world.schedules()

    world.provider.behaviour = Behaviour.REJECTS
    world.come_to_rest()
    assert [event.data.attempt for event in world.reports()] == [1, 2, 3, 4]
    [dead_letter] = world.dead_letters()
    assert [error.attempt for error in dead_letter.errors] == [1, 2, 3, 4]


def test_a_late_schedule_that_replaces_the_step_of_a_dying_process_loses_nothing(
    world: World, late: PendingRequest
) -> None:
    first, *_ = world.processes
    world.let_pass(75)
    [last_step] = world.unsettled()
    first.handle(last_step)
    world.let_pass()
    world.answer(3)  # look-up, suppressions, claim
    late.arrive()
    world.let_pass()
    assert last_step not in world.unsettled()
    first.die()

    world.provider.behaviour = Behaviour.ACCEPTS
    world.come_to_rest()
    assert world.statuses()[-1] is Status.SENT


def test_a_deferral_does_not_overwrite_the_claim_of_another_process(world: World) -> None:
    first, second, _ = world.processes
    world.accept(1)
    [other, step] = world.unsettled()
    world.provider.behaviour = Behaviour.REJECTS_CREDENTIALS
    first.handle(other)
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, rejection, which opens the breaker
    world.provider.behaviour = Behaviour.ACCEPTS
    first.handle(step)
    world.let_pass()
    world.in_progress(first)[-1].arrive()  # look-up
    second.handle(step)
    world.let_pass()
    world.answer(3, second)  # look-up, suppressions, claim
    world.answer(7, first)
    world.come_to_rest()

    message_id = world.requests()[1].message.id
    statuses = [event.data.status for event in world.reports() if event.data.message_id == message_id]
    assert statuses == [Status.SENT]


def test_a_failure_does_not_overwrite_the_claim_of_another_process(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.unsettled()
    world.provider.behaviour = Behaviour.FAILS
    first.handle(step)
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, rejection
    world.let_pass(31)
    world.provider.behaviour = Behaviour.ACCEPTS
    second.handle(step)
    world.let_pass()
    world.answer(3, second)  # look-up, suppressions, claim
    while not world.in_progress(first):
        world.let_pass(1)
    world.answer(7, first)
    world.come_to_rest()

    assert world.statuses() == [Status.SENT]


def test_the_replay_of_a_sent_message_is_reported_as_sent_and_sends_nothing(world: World) -> None:
    world.come_to_rest()
    world.replay(world.requests()[0])
    world.come_to_rest()

    reports = [event.data for event in world.reports()]
    assert [(report.generation, report.status) for report in reports] == [(0, Status.SENT), (1, Status.SENT)]
    assert len({report.provider_message_id for report in reports}) == 1
    assert len(world.provider.requested) == 1


def test_an_acceptance_overrides_a_later_claim_of_the_step(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(4)  # look-up, suppressions, claim, request
    world.let_pass(31)
    world.provider.behaviour = Behaviour.REJECTS
    second.handle(step)
    world.let_pass()
    world.answer(3, second)  # look-up, suppressions, claim
    [rejection] = world.in_progress(second)
    while not world.in_progress(first):
        world.let_pass(0.1)
    world.answer(7, first)
    rejection.succeed()
    world.come_to_rest()

    assert world.statuses() == [Status.SENT]
    assert world.dead_letters() == []


def test_a_redelivery_from_an_earlier_generation_changes_nothing(world: World) -> None:
    world.provider.behaviour = Behaviour.REJECTS
    world.come_to_rest()
    world.replay(world.requests()[0])
    world.come_to_rest()
    published = world.published()
    assert [dead_letter.generation for dead_letter in world.dead_letters()] == [0, 1]

    world.let_pass(601)  # after which the ids of events are no longer recognised
    world.reset_consumers()
    first, *_ = world.processes
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(7)
    assert world.published() == published


def test_a_claim_is_renewed_while_the_request_is_under_way(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(3)  # look-up, suppressions, claim
    [request] = world.in_progress()
    for _ in range(20):
        world.let_pass(1)
        world.answer(1, except_for=request)
    second.handle(step)
    world.let_pass()
    world.answer(7, second)

    assert world.in_progress() == [request]
    world.come_to_rest()
    assert world.statuses() == [Status.SENT]
    assert len(world.provider.requested) == 1


def test_a_process_that_cannot_renew_its_claim_gives_up_its_request_before_others_take_over(
    without_keys: World,
) -> None:
    world = without_keys
    first, *_ = world.processes
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(3)  # look-up, suppressions, claim
    [request] = world.in_progress()
    while request in world.in_progress():
        world.let_pass(0.5)

    assert world.now() < START + LEASE
    world.come_to_rest()
    assert world.statuses() == [Status.FAILED]
    [dead_letter] = world.dead_letters()
    assert dead_letter.reason == "claim_expired"


def test_a_claim_whose_acknowledgement_was_lost_raises_no_doubt(without_keys: World) -> None:
    world = without_keys
    first, *_ = world.processes
    [step] = world.unsettled()
    first.handle(step)
    world.let_pass()
    world.answer(2)  # look-up, suppressions
    [claim] = world.in_progress()
    claim.arrive()
    claim.lose()
    world.let_pass()
    assert world.provider.requested == []
    first.handle(step)
    world.let_pass()
    world.answer(7)

    assert world.now() < START + timedelta(seconds=1)
    assert world.statuses() == [Status.SENT]


def test_a_process_that_was_suspended_after_its_claim_makes_no_request(world: World) -> None:
    first, *_ = world.processes
    first.handle(world.unsettled()[0])
    world.let_pass()
    world.answer(2)  # look-up, suppressions
    [claim] = world.in_progress()
    claim.succeed()
    world.loop.suspend(LEASE.total_seconds())
    world.let_pass()

    assert world.requests_to_provider == []
    world.come_to_rest()
    assert world.statuses() == [Status.RETRYING, Status.SENT]


def test_a_claim_made_at_the_same_moment_is_not_mistaken_for_ones_own() -> None:
    world = World(honours_keys=False)
    world.accept(0)
    [step] = world.unsettled()
    first, *_ = world.processes
    first.handle(step)
    world.let_pass()
    first.handle(step)
    world.let_pass()
    world.answer(3, first)  # both claim the step, one of them succeeds, and the other one looks it up
    world.in_progress()[1].lose()
    world.let_pass()
    world.on_the_wire()[0].arrive()
    first.die()  # before it records the response
    world.let_pass()
    world.come_to_rest()
    assert len(world.provider.accepted) == 1
    world.close()
