"""Which rows each event becomes."""

from datetime import timedelta
from typing import get_args

import pytest

from services.ingest.projection import Rows, message_row, rows_of
from shared.events import DeliveryDue, Event, Resolution
from shared.lifecycle import Status
from tests.integration.ingest.stories import (
    NOON,
    accepted,
    dead_letter,
    message,
    receipt,
    received,
    resolved,
    status,
)

MESSAGE = message(1)


@pytest.mark.parametrize("kind", get_args(Event))
def test_every_kind_of_event_has_rows(kind: type[Event]) -> None:
    assert rows_of.dispatch(kind) is not rows_of.dispatch(object)


def test_an_accepted_message_is_a_message_and_the_first_event_of_its_round() -> None:
    event = accepted(MESSAGE, generation=2)
    rows = rows_of(event)

    assert rows.message == MESSAGE
    assert rows.message_event == {
        "id": event.id,
        "message_id": MESSAGE.id,
        "status": "accepted",
        "generation": 2,
        "precedence": 0,
        "attempt": 0,
        "next_attempt_at": None,
        "occurred_at": event.time,
    }
    assert rows.receipt is rows.dead_letter is None


@pytest.mark.parametrize(("minutes", "expected"), [(-1, "accepted"), (0, "accepted"), (1, "scheduled")])
def test_a_message_whose_time_was_ahead_when_it_was_accepted_is_scheduled(
    minutes: int, expected: str
) -> None:
    send_at = MESSAGE.created_at + timedelta(minutes=minutes)
    row = rows_of(accepted(MESSAGE.model_copy(update={"send_at": send_at}))).message_event

    assert row is not None
    assert (row["status"], row["precedence"]) == (expected, Status(expected).precedence)
    assert row["next_attempt_at"] == (send_at if expected == "scheduled" else None)


def test_a_received_message_is_a_message_and_nothing_else() -> None:
    event = received(1)
    rows = rows_of(event)

    assert rows.message == event.data.message
    assert rows.message_event is rows.receipt is rows.dead_letter is None


def test_a_change_of_status_is_an_event_with_its_error() -> None:
    row = rows_of(status(MESSAGE.id, Status.RETRYING, generation=1, attempt=3)).message_event

    assert row is not None
    assert (row["status"], row["generation"], row["precedence"], row["attempt"]) == ("retrying", 1, 2, 3)
    assert row["next_attempt_at"] == NOON
    assert row["error"] == {
        "attempt": 3,
        "code": "provider_error",
        "detail": "503",
        "provider": None,
        "status_code": None,
        "at": "2026-03-01T12:00:00Z",
    }


def test_a_receipt_keeps_what_the_provider_says() -> None:
    row = rows_of(receipt(MESSAGE.id, Status.UNDELIVERED)).receipt

    assert row is not None
    assert (row["status"], row["precedence"], row["error_code"]) == ("undelivered", 4, "30003")
    assert (row["message_id"], row["error_detail"]) == (None, None)


def test_a_dead_letter_is_kept_whole_as_the_stream_has_it() -> None:
    event = dead_letter(MESSAGE)
    row = rows_of(event).dead_letter

    assert row is not None
    assert row["message_id"] == MESSAGE.id
    assert row["created_at"] == event.time
    assert row["content"] == event.data.model_dump(mode="json", by_alias=True)


def test_a_resolution_is_a_row_of_its_own() -> None:
    event = resolved(dead_letter(MESSAGE), Resolution.DISCARDED, "a test")

    assert rows_of(event) == Rows(
        resolution={
            "dead_letter_id": dead_letter(MESSAGE).data.id,
            "resolution": "discarded",
            "reason": "a test",
            "resolved_by": "support",
            "resolved_at": event.time,
        }
    )


def test_a_due_delivery_is_the_senders_own_affair() -> None:
    rows = rows_of(DeliveryDue.of(accepted(MESSAGE).data, time=NOON))

    assert rows == type(rows)()


def test_a_message_knows_its_conversation_by_number() -> None:
    row = message_row(MESSAGE, 42)

    assert row["conversation_id"] == 42
    assert row["from_address"] == MESSAGE.from_
    assert row["attachments"] == MESSAGE.attachments
