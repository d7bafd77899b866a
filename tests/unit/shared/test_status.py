"""The same report wins in whatever order, and however often, the reports arrive."""

from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import Channel
from shared.events import Event
from shared.message import StatusReport
from shared.status import Status, Step
from tests.events import NOON, accepted, message, receipt, status_changed
from tests.reports import deciding_report, reports, status_after

MESSAGE = message(0)


@pytest.mark.parametrize(
    ("lower", "higher"),
    list(pairwise([Status.ACCEPTED, Status.SCHEDULED, Status.RETRYING, Status.SENT, Status.DELIVERED])),
)
def test_each_status_takes_precedence_over_the_one_before(lower: Status, higher: Status) -> None:
    assert lower.precedence < higher.precedence


def test_final_statuses_have_the_same_precedence() -> None:
    final = {Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.CANCELED}
    assert {each for each in Status if each.precedence == Status.DELIVERED.precedence} == final
    assert Status.RECEIVED.precedence == Status.ACCEPTED.precedence


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_message_that_was_sent_is_never_shown_as_expired(attempt: int) -> None:
    sent = status_changed(MESSAGE.id, Status.SENT, attempt=2)
    expired = status_changed(MESSAGE.id, Status.EXPIRED, attempt=attempt)
    assert status_after(MESSAGE.id, [sent, expired]) is Status.SENT


def test_a_message_that_expires_after_a_retry_is_shown_as_expired() -> None:
    retrying = status_changed(MESSAGE.id, Status.RETRYING, attempt=2)
    expired = status_changed(MESSAGE.id, Status.EXPIRED, attempt=3)
    assert status_after(MESSAGE.id, [expired, retrying]) is Status.EXPIRED


@pytest.mark.parametrize("certain", [Status.SENT, Status.FAILED, Status.CANCELED])
def test_a_certainty_counts_instead_of_a_failure_in_doubt(certain: Status) -> None:
    failed = status_changed(MESSAGE.id, Status.FAILED, attempt=3, in_doubt=True)
    assert status_after(MESSAGE.id, [failed]) is Status.FAILED
    assert deciding_report(MESSAGE.id, [failed, status_changed(MESSAGE.id, certain)])[0][1] > 2


def test_a_failure_in_doubt_counts_instead_of_the_retry_before_it() -> None:
    retrying = status_changed(MESSAGE.id, Status.RETRYING, attempt=2)
    failed = status_changed(MESSAGE.id, Status.FAILED, attempt=3, in_doubt=True)
    assert status_after(MESSAGE.id, [failed, retrying]) is Status.FAILED


@given(step=st.builds(Step, st.integers(0, 2), st.integers(1, 8), st.integers(0, 9)))
def test_each_step_is_greater_than_the_one_before(step: Step) -> None:
    assert step < step.deferred < step.next_attempt < Step(step.generation + 1, 1, 0)


@given(events=reports(MESSAGE), chance=st.randoms(use_true_random=False))
def test_neither_order_nor_repetitions_matter(events: list[Event[Any]], chance: Random) -> None:
    again = chance.sample(events * 2, k=2 * len(events))
    assert status_after(MESSAGE.id, again) == status_after(MESSAGE.id, events)


@given(events=reports(MESSAGE))
def test_a_status_only_moves_forward(events: list[Event[Any]]) -> None:
    weights = [deciding_report(MESSAGE.id, events[:count])[0] for count in range(len(events) + 1)]
    assert weights == sorted(weights)


@given(events=reports(MESSAGE))
def test_a_replay_starts_over(events: list[Event[Any]]) -> None:
    assert status_after(MESSAGE.id, [*events, accepted(MESSAGE, generation=3)]) is Status.ACCEPTED


@given(events=reports(MESSAGE), status=st.sampled_from([Status.DELIVERED, Status.UNDELIVERED]))
def test_a_receipt_does_not_affect_a_message_that_was_not_sent(
    events: list[Event[Any]], status: Status
) -> None:
    unsent = [event for event in events if not is_sent(event)]
    assert status_after(MESSAGE.id, [*unsent, receipt(MESSAGE.id, status)]) == status_after(
        MESSAGE.id, unsent
    )


def is_sent(event: Event[Any]) -> bool:
    return isinstance(event.data, StatusReport) and event.data.status is Status.SENT


@given(events=reports(MESSAGE), attempt=st.integers(1, 3))
def test_only_a_final_status_counts_after_sent(events: list[Event[Any]], attempt: int) -> None:
    sent = status_changed(MESSAGE.id, Status.SENT, generation=2, attempt=attempt)
    others = [event for event in events if event.id != sent.id]
    assert status_after(MESSAGE.id, [*others, sent]).precedence >= Status.SENT.precedence


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("channel", "minutes", "status"),
    [
        (Channel.SMS, (1, 2), Status.UNDELIVERED),
        (Channel.SMS, (2, 1), Status.DELIVERED),
        (Channel.EMAIL, (1, 2), Status.UNDELIVERED),
        (Channel.EMAIL, (2, 1), Status.UNDELIVERED),
    ],
)
def test_the_later_of_two_receipts_counts_unless_an_email_was_returned(
    channel: Channel, minutes: tuple[int, int], status: Status, order: int
) -> None:
    events: list[Event[Any]] = [status_changed(MESSAGE.id, Status.SENT)]
    for reported, minute in zip((Status.DELIVERED, Status.UNDELIVERED), minutes, strict=True):
        event = receipt(MESSAGE.id, reported)
        fields = {"channel": channel, "occurred_at": NOON + timedelta(minutes=minute)}
        events.append(event.model_copy(update={"data": event.data.model_copy(update=fields)}))

    assert status_after(MESSAGE.id, events[::order]) is status


def test_an_unknown_receipt_changes_no_status() -> None:
    events: list[Event[Any]] = [status_changed(MESSAGE.id, Status.SENT), receipt(MESSAGE.id, Status.UNKNOWN)]

    assert status_after(MESSAGE.id, events) is Status.SENT
