"""The message of a request, and its response."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import literal, select

from services.gateway.messages import service
from services.gateway.messages.schemas import EmailRequest, SendRequest, SmsRequest
from services.gateway.messages.service import as_reply, outbound_message
from shared.bus.topology import Stream
from shared.channels import Channel, Direction, MessageType
from shared.db import tables
from shared.events import decode, message_accepted
from shared.ids import new_message_id
from shared.message import DeliveryRequest, Message
from shared.resources import messages as resource
from shared.resources.messages import MessageResponse, select_messages
from shared.status import Status
from shared.validation import Subject, context_of
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import NOW, events
from tests.unit.gateway.requests import SEND_EMAIL, SEND_SMS

SMS = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "text message"}
EMAIL = {"from": "user@usehatchapp.com", "to": "contact@gmail.com", "body": "text"}


def message(model: type[SendRequest], payload: dict[str, Any]) -> Message:
    body = model.model_validate(payload, context=context_of("US"))
    return outbound_message(body, id_=new_message_id(), now=NOW)


def sms(**changes: Any) -> Message:  # noqa: ANN401 - any field
    return message(SmsRequest, {**SMS, **changes})


def email(**changes: Any) -> Message:  # noqa: ANN401 - any field
    return message(EmailRequest, {**EMAIL, **changes})


async def test_a_valid_priority_is_no_fault_of_a_request_that_has_others(client: httpx.AsyncClient) -> None:
    response = await client.post(SEND_SMS, json={**SMS, "priority": "bulk", "to": "nobody"})
    assert [fault["field"] for fault in response.json()["errors"]] == ["to"]


@pytest.mark.parametrize(("path", "payload"), [(SEND_SMS, SMS), (SEND_EMAIL, EMAIL)])
@pytest.mark.parametrize(
    ("requested", "priority"),
    [({}, "transactional"), ({"priority": "transactional"}, "transactional"), ({"priority": "bulk"}, "bulk")],
)
async def test_a_message_is_published_with_its_priority(
    client: httpx.AsyncClient,
    server: JetStream,
    path: str,
    payload: dict[str, str],
    requested: dict[str, str],
    priority: str,
) -> None:
    response = await client.post(path, json={**payload, **requested})
    assert response.status_code == 202
    assert response.json()["priority"] == priority
    [stored] = server.messages(Stream.OUTBOUND)
    assert stored.subject.split(".")[2] == priority
    [event] = events(server, Stream.OUTBOUND)
    assert event.data.message.priority == priority


@pytest.mark.parametrize(
    "spelling", ["+18045551234", "(804) 555-1234", "804.555.1234", "1 804 555 1234", "tel:+1-804-555-1234"]
)
def test_a_phone_number_becomes_e164(spelling: str) -> None:
    assert sms(to=spelling).to == "+18045551234"


@pytest.mark.parametrize("sender", ["12345", "ACME", "Acme Inc."])
def test_short_codes_and_sender_ids_can_send(sender: str) -> None:
    assert sms(**{"from": sender}).from_ == sender


@pytest.mark.parametrize(
    "spelling",
    [
        "User@UseHatchApp.com",
        "A User <User@usehatchapp.com>",
        "[User@usehatchapp.com](mailto:User@usehatchapp.com)",
    ],
)
def test_an_email_address_keeps_its_spelling_and_is_compared_without_case(spelling: str) -> None:
    sent = email(**{"from": spelling})

    assert (sent.from_, sent.from_key) == ("User@usehatchapp.com", "user@usehatchapp.com")
    assert sent.participants == ["contact@gmail.com", "user@usehatchapp.com"]


def test_a_reply_is_in_the_same_conversation() -> None:
    there, back = sms(), sms(**{"from": SMS["to"], "to": SMS["from"], "type": "mms"})

    assert there.conversation_key == back.conversation_key
    assert there.direction is Direction.OUTBOUND


def test_a_sender_can_write_to_itself() -> None:
    assert sms(to=SMS["from"]).participants == ["+12016661234"]


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
def test_a_timestamp_is_in_utc_and_now_by_default(text: str | None, expected: datetime) -> None:
    sent = sms(timestamp=text)

    assert sent.timestamp == expected
    assert sent.timestamp.tzinfo == UTC


@pytest.mark.parametrize("payload", [{}, {"attachments": None}, {"attachments": []}])
def test_attachments_are_optional(payload: dict[str, Any]) -> None:
    assert sms(**payload).attachments == []


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
def test_attachments_are_kept_unchanged(url: str) -> None:
    assert sms(attachments=[url]).attachments == [url]


@pytest.mark.parametrize("body", [None, "", " "])
def test_a_body_is_optional_beside_an_attachment(body: str | None) -> None:
    assert sms(body=body, attachments=["attachment-url"]).body == (body or "")


def test_the_longest_sms() -> None:
    assert len(sms(body="😀" * 1_600).body) == 1_600


def test_text_keeps_its_line_breaks_and_its_emoji() -> None:
    body = "tab\tline\r\nend 👩‍👩‍👧\u2028"

    assert email(body=body, subject="Ünïcödé").body == body


def test_an_email_can_have_a_subject_and_name_its_type() -> None:
    sent = email(subject="Hello", type="email")

    assert (sent.subject, sent.type, sent.channel) == ("Hello", MessageType.EMAIL, Channel.EMAIL)


@pytest.mark.parametrize(
    ("payload", "segments", "encoding"),
    [
        ({"body": "Hello"}, 1, "GSM-7"),
        ({"body": "x" * 161}, 2, "GSM-7"),
        ({"body": "ж" * 71}, 2, "UCS-2"),
        ({"type": "mms"}, None, None),
        ({"attachments": ["https://example.com/a.jpg"]}, None, None),
    ],
)
def test_the_response_has_the_segments_of_an_sms(
    payload: dict[str, Any], segments: int | None, encoding: str | None
) -> None:
    response = MessageResponse.of(sms(**payload), Status.ACCEPTED).model_dump(mode="json", by_alias=True)

    assert (response["segments"], response["encoding"]) == (segments, encoding)


def test_an_sms_with_attachments_becomes_an_mms() -> None:
    assert sms(attachments=["https://example.com/a.jpg"]).type is MessageType.MMS
    assert sms(attachments=[]).type is MessageType.SMS


def test_an_mms_that_an_earlier_version_stored_as_an_sms_has_no_segments() -> None:
    stored = sms(attachments=["https://example.com/a.jpg"]).model_copy(update={"type": MessageType.SMS})

    assert MessageResponse.of(stored, Status.SENT).segments is None


def test_the_fields_of_an_email_pass_from_the_request_to_the_response() -> None:
    sent = email(
        **{"from": "Jörg Müller <joerg@example.com>", "to": '"李雷" <lilei@example.com>'},
        body="<p>Hi</p>",
        body_type="html",
        text="Hi",
        reply_to=["Casey's Garage <office@example.com>"],
        cc=["Doe, Jane <jane@example.com>", "JANE@example.com", "lilei@example.com"],
        bcc=["jane@example.com", "Eve@example.com"],
    )
    response = MessageResponse.of(sent, Status.ACCEPTED).model_dump(mode="json", by_alias=True)

    assert (response["from"], response["from_name"]) == ("joerg@example.com", "Jörg Müller")
    assert (response["to"], response["to_name"]) == ("lilei@example.com", "李雷")
    assert (response["body_type"], response["text"]) == ("html", "Hi")
    assert response["reply_to"] == ["Casey's Garage <office@example.com>"]
    assert response["cc"] == ['"Doe, Jane" <jane@example.com>']
    assert response["bcc"] == ["Eve@example.com"]


def test_messages_of_earlier_and_of_later_versions_are_readable() -> None:
    fields = {"from_name", "to_name", "text", "body_type", "reply_to", "cc", "bcc", "references"}
    earlier = email().model_dump(mode="json", by_alias=True, exclude=fields)
    copy = {"spelling": "ann@example.com", "key": "ann@example.com", "a_later_field": 1}
    later = {**earlier, "cc": [copy], "a_later_field": 1}

    assert Message.model_validate_json(json.dumps(earlier)).cc == []
    assert [copy.spelling for copy in Message.model_validate_json(json.dumps(later)).cc] == [
        "ann@example.com"
    ]


def test_a_message_with_copies_passes_through_a_stream() -> None:
    sent = email(cc=["Doe, Jane <jane@example.com>"], reply_to=["office@example.com"], text="Hi")
    event = message_accepted(DeliveryRequest(message=sent, expires_at=NOW), time=NOW)

    assert decode(event.encode()) == event


@pytest.mark.parametrize(
    ("subject", "answered", "expected"),
    [
        (None, "Quote", "Re: Quote"),
        ("", "Quote", "Re: Quote"),
        (None, "RE: Quote", "RE: Quote"),
        ("Invoice", "Quote", "Invoice"),
        (None, None, None),
        (None, "x" * 998, "Re: " + "x" * 994),
    ],
)
def test_a_reply_without_a_subject_has_that_of_its_parent(
    subject: str | None, answered: str | None, expected: str | None
) -> None:
    parent = email().model_copy(update={"subject": answered})

    assert as_reply(parent, email(subject=subject)).subject == expected


@pytest.mark.parametrize(
    ("references", "id_", "expected"),
    [
        ([], None, []),
        ([], "<1@b.c>", ["<1@b.c>"]),
        (["<0@b.c>"], "<1@b.c>", ["<0@b.c>", "<1@b.c>"]),
        (["<0@b.c>"], None, ["<0@b.c>"]),
    ],
)
def test_a_reply_continues_the_thread_of_its_parent(
    references: list[str], id_: str | None, expected: list[str]
) -> None:
    parent = email().model_copy(update={"references": references, "email_id": id_})

    assert as_reply(parent, email()).references == expected


async def test_a_message_is_published_with_its_conversation(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    response = await client.post(SEND_SMS, json=SMS, headers={"Idempotency-Key": "a-key"})

    [event] = events(server, Stream.OUTBOUND)
    sent = event.data.message
    assert sent.id.version == 7
    assert response.headers["location"] == f"/api/messages/{sent.id}"
    assert (event.data.generation, event.data.attempt) == (0, 1)
    assert event.data.expires_at == NOW + timedelta(hours=4)
    assert response.json() == {
        "id": str(sent.id),
        "conversation_id": None,
        "conversation_key": str(sent.conversation_key),
        "direction": "outbound",
        "type": "sms",
        "from": "+12016661234",
        "to": "+18045551234",
        "from_name": None,
        "to_name": None,
        "subject": None,
        "body": "text message",
        "body_type": None,
        "text": None,
        "reply_to": [],
        "cc": [],
        "bcc": [],
        "attachments": [],
        "timestamp": "2026-01-02T03:04:05.678901Z",
        "status": "accepted",
        "provider": None,
        "provider_message_id": None,
        "error": None,
        "created_at": "2026-01-02T03:04:05.678901Z",
        "send_at": None,
        "priority": "transactional",
        "warnings": [],
        "segments": 1,
        "encoding": "GSM-7",
    }


async def test_an_email_has_no_segments(client: httpx.AsyncClient) -> None:
    response = await client.post(SEND_EMAIL, json=EMAIL)

    assert response.status_code == 202
    assert (response.json()["segments"], response.json()["encoding"]) == (None, None)


class TaggedEmail(EmailRequest):
    """A request of a later release, which has one more optional field."""

    tag: Subject | None = None


class TaggedMessage(Message):
    tag: str | None = None


class TaggedResponse(MessageResponse):
    tag: str | None = None


@pytest.mark.parametrize("tag", ["a", None])
def test_an_optional_field_passes_from_the_request_to_the_response(
    monkeypatch: pytest.MonkeyPatch, tag: str | None
) -> None:
    monkeypatch.setattr(service, "Message", TaggedMessage)

    sent = message(TaggedEmail, {**EMAIL, "tag": tag})

    response = TaggedResponse.of(sent, Status.ACCEPTED).model_dump(mode="json", by_alias=True)
    assert response["tag"] == tag


def test_an_optional_field_passes_from_the_table_to_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "MessageResponse", TaggedResponse)
    columns = (literal(None).label("tag"), literal(None).label("internal"))
    table = select(tables.Message.__table__, *columns).subquery()

    selected = {column.key for column in select_messages(table, table).selected_columns}

    assert "tag" in selected
    assert "internal" not in selected
    assert selected == set(TaggedResponse.model_fields)
