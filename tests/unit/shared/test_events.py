import json
from datetime import timedelta
from typing import Any

import pytest

from shared.dead_letters import DeadLetterResolution, Resolution
from shared.errors import BadMessageError
from shared.events import (
    Event,
    accepted_status,
    dead_letter_resolved,
    decode,
    delivery_due,
    message_accepted,
    receipt_id,
    status_changed,
    suppression_changed,
)
from shared.ids import dead_letter_id, event_id
from shared.message import StatusReport
from shared.status import Status
from shared.suppressions import SuppressionState
from tests import events, messages


@pytest.mark.parametrize("event", events.of_all_kinds(), ids=lambda event: event.type)
def test_an_event_is_the_same_after_encoding_and_decoding(event: Event[Any]) -> None:
    assert decode(event.encode()) == event


def test_events_are_cloudevents() -> None:
    event = json.loads(messages.accepted().encode())
    assert event.keys() == {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data",
    }  # fmt: skip
    assert event["specversion"] == "1.0"


def test_each_generation_of_a_message_is_accepted_once() -> None:
    request = messages.request()
    again, replayed = request, request.model_copy(update={"generation": 1})
    ids = {message_accepted(each, time=messages.now()).id for each in (request, again, replayed)}
    assert len(ids) == 2


def test_each_step_of_a_delivery_is_due_once() -> None:
    request = messages.request()
    steps = [{}, {}, {"attempt": 2}, {"deferral_count": 1}, {"generation": 1}]
    ids = {delivery_due(request.model_copy(update=step), time=messages.now()).id for step in steps}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("delay", "expected"),
    [(None, Status.ACCEPTED), (timedelta(0), Status.ACCEPTED), (timedelta(seconds=1), Status.SCHEDULED)],
)
def test_a_message_is_scheduled_until_its_time(delay: timedelta | None, expected: Status) -> None:
    now = messages.now()
    request = messages.request(messages.message(send_at=delay if delay is None else now + delay))
    assert accepted_status(message_accepted(request, time=now)) is expected


@pytest.mark.parametrize(
    "status",
    [Status.SCHEDULED, Status.SENT, Status.RETRYING, Status.FAILED, Status.EXPIRED, Status.CANCELED],
)
def test_the_type_of_a_status_event_contains_the_status(status: Status) -> None:
    message = messages.message()
    report = StatusReport(
        message_id=message.id, channel=message.channel, status=status, generation=0, attempt=1
    )
    event = status_changed(report, time=messages.now(), source="/sender")
    assert event.type == f"messaging.message.{status}.v1"


VALID = json.loads(messages.accepted().encode())
INVALID: list[tuple[bytes, str]] = [
    (b"", "not_json"),
    (b"\xff\xfe", "not_json"),
    (b"null", "invalid_event"),
    (b"[]", "invalid_event"),
    (b"{}", "invalid_event"),
    (json.dumps({**VALID, "type": "messaging.message.accepted.v9"}).encode(), "unknown_type"),
    (json.dumps({**VALID, "data": {}}).encode(), "invalid_event"),
    (json.dumps({**VALID, "specversion": "2.0"}).encode(), "invalid_event"),
]


@pytest.mark.parametrize(("payload", "code"), INVALID)
def test_an_invalid_event_is_a_bad_message(payload: bytes, code: str) -> None:
    with pytest.raises(BadMessageError) as caught:
        decode(payload)
    assert caught.value.code == code


def test_an_error_does_not_quote_texts_of_people() -> None:
    private: dict[str, Any] = {**VALID, "data": {"message": "a private text"}}
    with pytest.raises(BadMessageError) as caught:
        decode(json.dumps(private).encode())
    assert "private" not in str(caught.value)


DEAD_LETTER = dead_letter_id("a test")


def test_a_resolution_that_is_published_twice_is_one_event() -> None:
    def resolved(resolution: Resolution, by: str) -> Event[DeadLetterResolution]:
        data = DeadLetterResolution(
            dead_letter_id=DEAD_LETTER, resolution=resolution, reason="because", by=by
        )
        return dead_letter_resolved(data, time=messages.now())

    first, again = resolved(Resolution.DISCARDED, "ann"), resolved(Resolution.DISCARDED, "ben")
    other = resolved(Resolution.REPLAYED, "ann")
    assert first.id == again.id
    assert len({first.id, other.id, DEAD_LETTER, event_id(DEAD_LETTER, "replayed")}) == 4


def test_a_receipt_is_identified_by_its_message_and_its_key() -> None:
    receipt = events.receipt(messages.message().id).data
    other = receipt.model_copy(update={"key": "another"})
    of_other_message = receipt.model_copy(update={"provider_message_id": "another"})
    same = receipt.model_copy(update={"raw": "another", "occurred_at": messages.now()})
    assert receipt_id(receipt) == receipt_id(same)
    assert len({receipt_id(each) for each in (receipt, other, of_other_message)}) == 3


def test_a_suppression_change_with_a_cause_is_the_same_event_at_any_time() -> None:
    first, later = (events.suppression_changed(minute, SuppressionState.OPTED_OUT).data for minute in (0, 1))
    assert suppression_changed(first).id != suppression_changed(later).id
    caused = [suppression_changed(each.model_copy(update={"cause": "a"})).id for each in (first, later)]
    assert caused[0] == caused[1]
