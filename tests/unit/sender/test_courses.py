"""Single courses of a message that need bad luck."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from shared.ledger import State
from shared.lifecycle import Status
from tests.unit.sender.simulation import START, Asked, Behaviour, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World(honours_keys=True)
    world.accept(0)
    yield world
    world.close()


def test_an_attempt_that_is_put_off_for_hours_is_reported_once(world: World) -> None:
    world.provider.behaviour = Behaviour.REFUSES_CREDENTIALS
    world.come_to_rest()

    assert [event.data.status for event in world.statuses()] == [Status.SCHEDULED, Status.EXPIRED]


def test_what_the_provider_took_is_recorded_however_often_nats_is_away(world: World) -> None:
    first, *_ = world.processes
    first.handle(world.undone()[0])
    world.let_pass()
    world.answer(4)  # it looks, asks for consent, claims and sends
    for _ in range(10):
        world.let_pass(10)
    world.come_to_rest()

    assert [event.data.status for event in world.statuses()] == [Status.SENT]
    assert len(world.provider.asked) == 1


def test_after_an_outage_who_knows_what_was_sent_has_time_to_say_so(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.undone()
    first.handle(step)
    world.let_pass()
    world.answer(4)  # it looks, asks for consent, claims and sends
    while world.now() < START + timedelta(seconds=40):
        world.let_pass(1)
    world.connected_since = world.now()
    second.handle(step)
    world.let_pass()
    world.answer(7, second)
    world.come_to_rest()

    assert len(world.provider.asked) == 1
    assert [event.data.status for event in world.statuses()] == [Status.SENT]


def test_nobody_else_sends_what_is_being_sent(world: World) -> None:
    first, second, _ = world.processes
    first.handle(world.undone()[0])
    world.let_pass()
    world.answer(3)  # it looks, asks for consent and claims
    second.handle(world.undone()[0])
    world.let_pass()
    world.answer(7, second)

    assert [asked.by for asked in world.under_way()] == [first]
    world.come_to_rest()
    assert len(world.provider.asked) == 1


def test_of_two_that_know_different_ends_the_one_who_recorded_it_is_right(world: World) -> None:
    first, second, _ = world.processes
    first.handle(world.undone()[0])
    world.let_pass()
    world.answer(4)  # it looks, asks for consent, claims and sends
    world.let_pass(31)
    world.provider.behaviour = Behaviour.REJECTS
    second.handle(world.undone()[0])
    world.let_pass()
    world.answer(7, second)
    world.come_to_rest()

    assert [event.data.status for event in world.statuses()] == [Status.FAILED]


def test_a_schedule_that_is_told_late_and_replaces_a_newer_one_loses_nothing(world: World) -> None:
    """All senders are away for longer than ids are remembered; then an old step races with the next."""
    first, second, third = world.processes
    world.provider.behaviour = Behaviour.FAILS
    first.handle(world.undone()[0])
    world.let_pass()
    world.answer(6)  # all but the schedule
    [schedule] = world.under_way()
    schedule.arrive()
    first.die()
    world.let_pass(601)

    old_step, next_step = world.undone()
    second.handle(old_step)
    world.let_pass()
    world.answer(2)  # it looks and reports
    [late] = world.under_way()
    third.handle(next_step)
    world.let_pass()
    world.answer(7, but=late)
    [newer] = world.schedules()
    late.succeed()
    world.let_pass()
    assert newer not in world.schedules()

    world.provider.behaviour = Behaviour.ACCEPTS
    world.come_to_rest()
    record = world.recorded(world.requests()[0].message.id)
    assert record is not None
    assert record.entry.state is State.SENT


@pytest.fixture
def late(world: World) -> Asked:
    """The schedule of the second attempt, still under way when that has failed and the third is scheduled."""
    first, second, third = world.processes
    world.provider.behaviour = Behaviour.FAILS
    [step] = world.undone()
    first.handle(step)
    world.let_pass()
    world.answer(6)  # all but the schedule
    [late] = world.under_way()
    world.let_pass(5)  # it gives up waiting, and the step comes again
    second.handle(step)
    world.let_pass()
    world.answer(7, second)
    world.let_pass(2)
    [next_step] = world.undone()
    third.handle(next_step)
    world.let_pass()
    world.answer(7)
    return late


def test_a_schedule_that_is_told_steps_late_loses_nothing(world: World, late: Asked) -> None:
    first, *_ = world.processes
    world.let_pass(75)
    [last_step] = world.undone()
    first.handle(last_step)
    world.let_pass()
    world.answer(7)
    [newer] = world.schedules()
    late.arrive()
    assert newer not in world.schedules()

    world.provider.behaviour = Behaviour.REJECTS
    world.come_to_rest()
    assert [event.data.attempt for event in world.statuses()] == [1, 2, 3, 4]
    [dead_letter] = world.dead_letters()
    assert [error.attempt for error in dead_letter.data.errors] == [1, 2, 3, 4]


def test_nor_does_one_that_takes_the_place_of_a_step_whose_process_dies(world: World, late: Asked) -> None:
    first, *_ = world.processes
    world.let_pass(75)
    [last_step] = world.undone()
    first.handle(last_step)
    world.let_pass()
    world.answer(3)  # it looks, asks for consent and claims
    late.arrive()
    world.let_pass()
    assert last_step not in world.undone()
    first.die()

    world.provider.behaviour = Behaviour.ACCEPTS
    world.come_to_rest()
    assert [event.data.status for event in world.statuses()][-1] is Status.SENT


def test_who_is_put_off_leaves_the_claim_of_another_alone(world: World) -> None:
    first, second, _ = world.processes
    world.accept(1)
    [other, step] = world.undone()
    world.provider.behaviour = Behaviour.REFUSES_CREDENTIALS
    first.handle(other)
    world.let_pass()
    world.answer(4)  # it looks, asks for consent, claims and is refused, so that it leaves the provider alone
    world.provider.behaviour = Behaviour.ACCEPTS
    first.handle(step)
    world.let_pass()
    world.under_way(first)[-1].arrive()  # it looks
    second.handle(step)
    world.let_pass()
    world.answer(3, second)  # it looks, asks for consent and claims
    world.answer(7, first)
    world.come_to_rest()

    message_id = world.requests()[1].message.id
    statuses = [event.data.status for event in world.statuses() if event.data.message_id == message_id]
    assert statuses == [Status.SENT]


def test_who_was_refused_leaves_the_claim_of_another_alone(world: World) -> None:
    first, second, _ = world.processes
    [step] = world.undone()
    world.provider.behaviour = Behaviour.FAILS
    first.handle(step)
    world.let_pass()
    world.answer(4)  # it looks, asks for consent, claims and is refused
    world.let_pass(31)
    world.provider.behaviour = Behaviour.ACCEPTS
    second.handle(step)
    world.let_pass()
    world.answer(3, second)  # it looks, asks for consent and claims
    while not world.under_way(first):
        world.let_pass(1)
    world.answer(7, first)
    world.come_to_rest()

    assert [event.data.status for event in world.statuses()] == [Status.SENT]


def test_what_was_sent_before_its_replay_is_sent_in_that_round_too(world: World) -> None:
    world.come_to_rest()
    world.replay(world.requests()[0])
    world.come_to_rest()

    reports = [event.data for event in world.statuses()]
    assert [(report.generation, report.status) for report in reports] == [(0, Status.SENT), (1, Status.SENT)]
    assert len({report.provider_message_id for report in reports}) == 1
    assert len(world.provider.asked) == 1
