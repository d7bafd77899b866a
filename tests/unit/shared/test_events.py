import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import BadMessageError
from shared.events import (
    DeadLetterResolution,
    DeadLetterResolved,
    MessageAccepted,
    Origin,
    Resolution,
    StatusChanged,
    StatusReport,
    decode,
    unreadable,
)
from shared.ids import dead_letter_id, event_id
from shared.lifecycle import Status
from tests import messages

ORIGIN = Origin(stream="OUTBOUND", sequence=7, subject="outbound.sms.1.x", consumer="sender-sms-01")


def test_an_event_survives_the_wire() -> None:
    event = messages.accepted()
    assert decode(event.encode()) == event


def test_events_are_cloudevents() -> None:
    event = json.loads(messages.accepted().encode())
    assert event.keys() == {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data",
    }  # fmt: skip
    assert event["specversion"] == "1.0"


def test_each_round_of_a_message_is_accepted_once() -> None:
    request = messages.request()
    again, replayed = request, request.model_copy(update={"generation": 1})
    ids = {MessageAccepted.of(each, time=messages.now()).id for each in (request, again, replayed)}
    assert len(ids) == 2


@pytest.mark.parametrize("status", [Status.SENT, Status.RETRYING, Status.FAILED, Status.EXPIRED])
def test_the_type_of_a_status_event_says_which(status: Status) -> None:
    message = messages.message()
    report = StatusReport(message_id=message.id, channel=message.channel, status=status, generation=0, attempt=1)
    assert StatusChanged.of(report, time=messages.now()).type == f"messaging.message.{status}.v1"


GOOD = json.loads(messages.accepted().encode())
BAD: list[tuple[bytes, str]] = [
    (b"", "not_json"),
    (b"\xff\xfe", "not_json"),
    (b"null", "invalid_event"),
    (b"[]", "invalid_event"),
    (b"{}", "invalid_event"),
    (json.dumps({**GOOD, "type": "messaging.message.accepted.v9"}).encode(), "unknown_type"),
    (json.dumps({**GOOD, "data": {}}).encode(), "invalid_event"),
    (json.dumps({**GOOD, "specversion": "2.0"}).encode(), "invalid_event"),
]


@pytest.mark.parametrize(("payload", "code"), BAD)
def test_what_is_no_event_is_a_bad_message(payload: bytes, code: str) -> None:
    with pytest.raises(BadMessageError) as caught:
        decode(payload)
    assert caught.value.code == code


def test_the_complaint_does_not_repeat_what_somebody_wrote() -> None:
    secret: dict[str, Any] = {**GOOD, "data": {"message": "a private text"}}
    with pytest.raises(BadMessageError) as caught:
        decode(json.dumps(secret).encode())
    assert "private" not in str(caught.value)


LETTER = dead_letter_id("a test")


def test_a_resolution_told_twice_is_one_event() -> None:
    def told(resolution: Resolution, by: str) -> DeadLetterResolved:
        data = DeadLetterResolution(dead_letter_id=LETTER, resolution=resolution, reason="because", by=by)
        return DeadLetterResolved.of(data, time=messages.now())

    first, again = told(Resolution.DISCARDED, "ann"), told(Resolution.DISCARDED, "ben")
    other = told(Resolution.REPLAYED, "ann")
    assert first.id == again.id
    assert len({first.id, other.id, LETTER, event_id(LETTER, "replayed")}) == 4


@pytest.mark.parametrize("reason", [None, "", "x" * 1_001])
def test_a_discard_says_why(reason: str | None) -> None:
    data = {"dead_letter_id": LETTER, "resolution": "discarded", "by": "ann"}
    DeadLetterResolution.model_validate({**data, "reason": "because"})
    with pytest.raises(ValidationError):
        DeadLetterResolution.model_validate({**data, "reason": reason})


@given(st.binary(max_size=100))
def test_a_dead_letter_keeps_any_payload(payload: bytes) -> None:
    letter = unreadable(payload, BadMessageError("not_json", "because"), ORIGIN)
    if letter.payload is not None:
        assert letter.payload.encode() == payload
    else:
        assert base64.b64decode(str(letter.payload_base64)) == payload


def test_two_consumers_that_stumble_over_one_message_make_one_dead_letter() -> None:
    error = BadMessageError("not_json", "because")
    other = ORIGIN.model_copy(update={"consumer": "ingest-outbound"})
    assert unreadable(b"x", error, ORIGIN).id == unreadable(b"x", error, other).id
