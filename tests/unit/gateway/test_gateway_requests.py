"""What becomes of the fields that the gateway accepts."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.gateway.messages import factory
from services.gateway.http.body import Model, validate
from services.gateway.messages.idempotency import fingerprint
from services.gateway.schemas import (
    EmailReceipt,
    EmailSend,
    EmailWebhook,
    Send,
    SmsReceipt,
    SmsSend,
    SmsWebhook,
)
from shared.channels import Direction, MessageType
from shared.events import Message
from shared.ids import new_message_id
from shared.lifecycle import Status

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
SMS = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "text message"}
EMAIL = {"from": "user@usehatchapp.com", "to": "contact@gmail.com", "body": "text"}


def read(model: type[Model], payload: dict[str, Any]) -> Model:
    return validate(payload, model, default_region="US")


def sent(send: Send) -> Message:
    return compose.outbound_message(send, id_=new_message_id(), now=NOW)


@pytest.mark.parametrize(
    "spelling", ["+18045551234", "(804) 555-1234", "804.555.1234", "1 804 555 1234", "tel:+1-804-555-1234"]
)
def test_a_phone_number_becomes_e164(spelling: str) -> None:
    assert sent(read(SmsSend, {**SMS, "to": spelling})).to == "+18045551234"


@pytest.mark.parametrize("sender", ["12345", "ACME", "Acme Inc."])
def test_short_codes_and_sender_ids_can_send(sender: str) -> None:
    assert sent(read(SmsSend, {**SMS, "from": sender})).from_ == sender


@pytest.mark.parametrize(
    "spelling",
    [
        "User@UseHatchApp.com",
        "A User <User@usehatchapp.com>",
        "[User@usehatchapp.com](mailto:User@usehatchapp.com)",
    ],
)
def test_an_email_address_keeps_its_spelling_and_compares_without_case(spelling: str) -> None:
    message = sent(read(EmailSend, {**EMAIL, "from": spelling}))

    assert message.from_ == "User@usehatchapp.com"
    assert message.participants == ["contact@gmail.com", "user@usehatchapp.com"]


def test_whoever_writes_first_the_conversation_is_the_same() -> None:
    there = sent(read(SmsSend, SMS))
    back = compose.inbound_message(
        read(
            SmsWebhook,
            {**SMS, "from": SMS["to"], "to": SMS["from"], "type": "mms", "messaging_provider_id": "1"},
        ),
        now=NOW,
    )

    assert there.conversation_key == back.conversation_key
    assert (there.direction, back.direction) == (Direction.OUTBOUND, Direction.INBOUND)


def test_a_sender_may_write_to_itself() -> None:
    assert sent(read(SmsSend, {**SMS, "to": SMS["from"]})).participants == ["+12016661234"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-11-01T14:00:00Z", datetime(2024, 11, 1, 14, tzinfo=UTC)),
        ("2024-11-01t14:00:00z", datetime(2024, 11, 1, 14, tzinfo=UTC)),
        ("2024-11-01T14:00:00", datetime(2024, 11, 1, 14, tzinfo=UTC)),
        ("2024-11-01T14:00:00+05:30", datetime(2024, 11, 1, 8, 30, tzinfo=UTC)),
        ("2024-11-01T14:00:00.123456789-08:00", datetime(2024, 11, 1, 22, 0, 0, 123_456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (None, NOW),
    ],
)
def test_timestamps_are_in_utc_and_now_if_left_out(text: str | None, expected: datetime) -> None:
    message = sent(read(SmsSend, {**SMS, "timestamp": text}))

    assert message.timestamp == expected
    assert message.timestamp.tzinfo == UTC


@pytest.mark.parametrize("payload", [{}, {"attachments": None}, {"attachments": []}])
def test_no_attachments(payload: dict[str, Any]) -> None:
    assert sent(read(SmsSend, {**SMS, **payload})).attachments == []


@pytest.mark.parametrize(
    "url",
    [
        "attachment-url",
        "/a/b.jpg",
        "//cdn/b.jpg",
        "HTTPS://example.com/ä?x=y#z",
        "http://[::1]:8080/",
        "a?b:c",
    ],
)
def test_attachments_stay_as_they_are(url: str) -> None:
    message = sent(read(SmsSend, {**SMS, "type": "sms", "attachments": [url]}))

    assert message.attachments == [url]
    assert message.type is MessageType.SMS


@pytest.mark.parametrize("body", [None, "", " "])
def test_a_body_is_not_needed_beside_an_attachment(body: str | None) -> None:
    message = sent(read(SmsSend, {**SMS, "body": body, "attachments": ["attachment-url"]}))

    assert message.body == (body or "")


def test_the_longest_sms_there_is() -> None:
    assert len(sent(read(SmsSend, {**SMS, "body": "😀" * 1_600})).body) == 1_600


def test_text_keeps_its_breaks_and_its_emoji() -> None:
    body = "tab\tline\r\nend 👩‍👩‍👧\u2028"

    assert sent(read(EmailSend, {**EMAIL, "body": body, "subject": "Ünïcödé"})).body == body


def test_an_email_may_have_a_subject_and_say_its_type() -> None:
    message = sent(read(EmailSend, {**EMAIL, "subject": "Hello", "type": "email"}))

    assert (message.subject, message.type) == ("Hello", MessageType.EMAIL)


def test_a_webhook_is_one_message_however_often_it_comes() -> None:
    webhook = read(EmailWebhook, {**EMAIL, "xillio_id": "message-2", "unknown": {"field": 1}})
    first, again = (compose.inbound_message(webhook, now=now) for now in (NOW, datetime.now(UTC)))

    assert first.id == again.id
    assert (first.provider, first.provider_message_id) == ("generic_email", "message-2")


def test_a_webhook_may_be_empty() -> None:
    webhook = read(SmsWebhook, {**SMS, "body": "", "messaging_provider_id": "1"})

    assert compose.inbound_message(webhook, now=NOW).body == ""


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("sent", Status.SENT),
        ("delivered", Status.DELIVERED),
        ("undelivered", Status.UNDELIVERED),
        ("bounced", Status.UNDELIVERED),
        ("rejected", Status.UNDELIVERED),
        ("failed", Status.FAILED),
    ],
)
def test_the_words_of_providers(word: str, status: Status) -> None:
    receipt = read(EmailReceipt, {"xillio_id": "1", "status": word})

    assert compose.receipt_event(receipt, {}, now=NOW).data.status is status


def test_a_receipt_is_one_event_however_often_it_comes() -> None:
    payload = {"messaging_provider_id": "1", "status": "failed", "error_code": 30_003}
    first = compose.receipt_event(read(SmsReceipt, payload), payload, now=NOW)
    again = compose.receipt_event(read(SmsReceipt, payload), payload, now=datetime.now(UTC))
    other = compose.receipt_event(read(SmsReceipt, {**payload, "status": "sent"}), payload, now=NOW)

    assert first.id == again.id != other.id
    assert first.data.error_code == "30003"
    assert first.data.occurred_at == NOW


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"to": "804-555-1234"}, True),
        ({"attachments": []}, True),
        ({"body": "another text"}, False),
        ({"type": "mms"}, False),
        ({"timestamp": "2024-11-01T14:00:00Z"}, False),
    ],
)
def test_the_fingerprint_is_that_of_the_normalised_request(change: dict[str, Any], *, same: bool) -> None:
    first, other = read(SmsSend, SMS), read(SmsSend, {**SMS, **change})
    later = compose.outbound_message(other, id_=new_message_id(), now=datetime.now(UTC))

    assert (fingerprint(first, sent(first)) == fingerprint(other, later)) is same
