"""Which of several reports counts, in whatever order and however often they come."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import Event
from shared.lifecycle import Status
from tests.integration.ingest.stories import accepted, message, receipt, status
from tests.reports import deciding, reports, status_after

MESSAGE = message(0)


@pytest.mark.parametrize(
    ("lower", "higher"),
    list(pairwise([Status.ACCEPTED, Status.SCHEDULED, Status.RETRYING, Status.SENT, Status.DELIVERED])),
)
def test_each_step_ranks_above_the_one_before(lower: Status, higher: Status) -> None:
    assert lower.precedence < higher.precedence


def test_what_is_final_ranks_alike() -> None:
    final = {Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.EXPIRED, Status.CANCELED}
    assert {each for each in Status if each.precedence == Status.DELIVERED.precedence} == final
    assert Status.RECEIVED.precedence == Status.ACCEPTED.precedence


@given(events=reports(MESSAGE), chance=st.randoms(use_true_random=False))
def test_neither_order_nor_repetitions_matter(events: list[Event], chance: Random) -> None:
    again = chance.sample(events * 2, k=2 * len(events))
    assert status_after(MESSAGE.id, again) == status_after(MESSAGE.id, events)


@given(events=reports(MESSAGE))
def test_no_report_takes_a_message_back(events: list[Event]) -> None:
    weights = [deciding(MESSAGE.id, events[:count])[0] for count in range(len(events) + 1)]
    assert weights == sorted(weights)


@given(events=reports(MESSAGE))
def test_a_replay_starts_over(events: list[Event]) -> None:
    assert status_after(MESSAGE.id, [*events, accepted(MESSAGE, generation=3)]) is Status.ACCEPTED


@given(events=reports(MESSAGE), word=st.sampled_from([Status.DELIVERED, Status.UNDELIVERED]))
def test_a_receipt_says_nothing_of_what_was_not_sent(events: list[Event], word: Status) -> None:
    unsent = [event for event in events if "sent" not in event.type]
    assert status_after(MESSAGE.id, [*unsent, receipt(MESSAGE.id, word)]) == status_after(MESSAGE.id, unsent)


@given(events=reports(MESSAGE), attempt=st.integers(1, 3))
def test_nothing_but_an_end_counts_after_sent(events: list[Event], attempt: int) -> None:
    sent = status(MESSAGE.id, Status.SENT, generation=2, attempt=attempt)
    others = [event for event in events if event.id != sent.id]
    assert status_after(MESSAGE.id, [*others, sent]).precedence >= Status.SENT.precedence
