"""The rows that each event adds."""

from datetime import timedelta
from typing import Any

import pytest

from services.ingest.projection import Projection, message_row, project
from shared.addresses import Address
from shared.channels import Channel
from shared.db import tables
from shared.dead_letters import Resolution
from shared.events import Event, delivery_due
from shared.status import Status
from shared.suppressions import SuppressionState
from tests.events import (
    NOON,
    accepted,
    dead_letter,
    message,
    of_all_kinds,
    receipt,
    received,
    resolved,
    status_changed,
    suppression_changed,
)

MESSAGE = message(1)


@pytest.mark.parametrize("event", of_all_kinds(), ids=lambda event: event.type)
def test_every_event_that_ingest_reads_is_projected(event: Event[Any]) -> None:
    assert project(event) != Projection()


def test_an_accepted_message_is_a_message_and_the_first_event_of_its_generation() -> None:
    event = accepted(MESSAGE, generation=2)

    assert project(event) == Projection(
        message=MESSAGE,
        rows={
            tables.MessageEvent: {
                "id": event.id,
                "message_id": MESSAGE.id,
                "status": "accepted",
                "generation": 2,
                "precedence": 0,
                "attempt": 0,
                "next_attempt_at": None,
                "occurred_at": event.time,
            }
        },
    )


@pytest.mark.parametrize(("minutes", "expected"), [(-1, "accepted"), (0, "accepted"), (1, "scheduled")])
def test_a_message_is_scheduled_if_its_time_is_later_than_its_acceptance(minutes: int, expected: str) -> None:
    send_at = MESSAGE.created_at + timedelta(minutes=minutes)
    row = project(accepted(message(1, send_at=send_at))).rows[tables.MessageEvent]

    assert (row["status"], row["precedence"]) == (expected, Status(expected).precedence)
    assert row["next_attempt_at"] == (send_at if expected == "scheduled" else None)


def test_a_received_message_is_a_message_and_nothing_else() -> None:
    event = received(1)

    assert project(event) == Projection(message=event.data.message)


def test_a_change_of_status_is_an_event_with_its_error() -> None:
    event = status_changed(MESSAGE.id, Status.RETRYING, generation=1, attempt=3)
    row = project(event).rows[tables.MessageEvent]

    assert (row["status"], row["generation"], row["precedence"], row["attempt"]) == ("retrying", 1, 2, 3)
    assert row["next_attempt_at"] == NOON
    assert row["error"] == event.data.error


def test_a_receipt_keeps_the_report_of_the_provider() -> None:
    event = receipt(MESSAGE.id, Status.UNDELIVERED)

    assert project(event).rows == {
        tables.DeliveryReceipt: {
            "id": event.id,
            "provider": event.data.provider,
            "provider_message_id": event.data.provider_message_id,
            "status": "undelivered",
            "precedence": 4,
            "error_code": "30003",
            "occurred_at": event.data.occurred_at,
        }
    }


@pytest.mark.parametrize(
    ("channel", "status", "precedence"),
    [
        (Channel.EMAIL, Status.UNDELIVERED, 5),
        (Channel.EMAIL, Status.FAILED, 5),
        (Channel.EMAIL, Status.DELIVERED, 4),
        (Channel.SMS, Status.FAILED, 4),
        (Channel.SMS, Status.UNKNOWN, -1),
    ],
)
def test_an_email_that_is_returned_takes_precedence_over_its_delivery(
    channel: Channel, status: Status, precedence: int
) -> None:
    event = receipt(MESSAGE.id, status)
    data = event.data.model_copy(update={"channel": channel})
    row = project(event.model_copy(update={"data": data})).rows[tables.DeliveryReceipt]

    assert (row["status"], row["precedence"]) == (status, precedence)


def test_a_dead_letter_is_stored_whole_as_in_the_stream() -> None:
    event = dead_letter(MESSAGE)
    row = project(event).rows[tables.DeadLetter]

    assert row["message_id"] == MESSAGE.id
    assert row["created_at"] == event.time
    assert row["content"] == event.data


def test_a_resolution_is_a_row_of_its_own() -> None:
    event = resolved(dead_letter(MESSAGE), Resolution.DISCARDED, reason="a test")

    assert project(event).rows == {
        tables.DeadLetterResolution: {
            "dead_letter_id": dead_letter(MESSAGE).data.id,
            "resolution": "discarded",
            "reason": "a test",
            "resolved_by": "support",
            "resolved_at": event.time,
        }
    }


def test_a_change_of_the_suppression_list_is_stored_with_its_key() -> None:
    event = suppression_changed(0, SuppressionState.OPTED_OUT)
    row = project(event).rows[tables.SuppressionChange]

    assert (row["id"], row["key"], row["changed_by"]) == (event.id, event.data.key, None)


def test_a_delivery_that_is_due_concerns_only_the_sender() -> None:
    assert project(delivery_due(accepted(MESSAGE).data, time=NOON)) == Projection()


def test_the_fields_of_an_email_are_one_column() -> None:
    copy = Address("cy@example.com", "cy@example.com", "Cy")
    sent = message(1).model_copy(update={"text": "Hello", "cc": [copy]})

    assert message_row(sent, 1)["email"] == {"text": "Hello", "cc": [copy]}
    assert message_row(message(1), 1)["email"] is None


def test_a_message_refers_to_its_conversation_by_number() -> None:
    row = message_row(MESSAGE, 42)

    assert row["conversation_id"] == 42
    assert row["from_address"] == MESSAGE.from_
    assert row["attachments"] == MESSAGE.attachments
