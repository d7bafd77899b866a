"""The validation of requests to send: each field at fault is named."""

import json
from datetime import timedelta

import httpx
import pytest

from shared.bus.topology import SEND_WINDOW, Stream
from tests.jetstream import JetStream
from tests.malformed import MALFORMED_JSON
from tests.unit.gateway.in_memory import NOW, calling, create_gateway, events
from tests.unit.gateway.requests import (
    EMAIL,
    MISSING,
    SEND_EMAIL,
    SEND_SMS,
    SENDS,
    SMS,
    changed,
    faults_of,
    post_json,
    problem_of,
)
from tests.webhooks import JSON

INVALID_SMS_FIELDS: list[tuple[str, object]] = [
    ("from", MISSING),
    ("from", None),
    ("from", ""),
    ("from", 12016661234),
    ("from", "abc\x00"),
    ("to", MISSING),
    ("to", "+1"),
    ("to", "+99912345"),
    ("to", "5551234567890123456"),
    ("to", "not a phone number at all"),
    ("to", "ACME"),
    ("to", []),
    ("to", ["+18045551234", "ACME"]),
    ("to", ["+18045551234", 5]),
    ("to", ["+18045551234"] * 51),
    ("to", "+18045551234;ext=5"),
    ("to", "\ud800"),
    ("type", MISSING),
    ("type", None),
    ("type", "email"),
    ("type", "SMS"),
    ("type", 1),
    ("body", MISSING),
    ("body", None),
    ("body", ""),
    ("body", " \n"),
    ("body", 5),
    ("body", "x" * 1_601),
    ("body", "nul \x00"),
    ("body", "escape \x1b[31m"),
    ("body", "c1 \x85"),
    ("body", "lone \ud83d surrogate"),
    ("attachments", "https://example.com/a.jpg"),
    ("attachments", {}),
    ("attachments", ["https://example.com/a.jpg"] * 11),
    ("attachments.0", [5]),
    ("attachments.0", [None]),
    ("attachments.0", [""]),
    ("attachments.0", ["javascript:alert(1)"]),
    ("attachments.0", ["data:text/plain,x"]),
    ("attachments.0", ["FILE:///etc/passwd"]),
    ("attachments.0", ["https://"]),
    ("attachments.0", ["https:///path"]),
    ("attachments.0", ["https://example.com/a b"]),
    ("attachments.0", ["https://example.com/\u00a0"]),
    ("attachments.0", ["\thttps://example.com"]),
    ("attachments.0", ["\ud800"]),
    ("attachments.0", ["https://example.com/" + "a" * 2_048]),
    ("reference", ""),
    ("reference", 17),
    ("reference", "x" * 256),
    ("reference", "two\nlines"),
    ("metadata", ["order"]),
    ("metadata", {str(number): "" for number in range(17)}),
    ("metadata", {str(number): "" for number in range(101)}),
    ("metadata.order", {"order": 17}),
    ("metadata.order", {"order": "x" * 513}),
    ("metadata.order", {"order": "nul \x00"}),
    ("metadata.order", {"order": {"nested": "17"}}),
    ("metadata..[key]", {"": "empty"}),
    ("timestamp", 1_730_469_600),
    ("timestamp", "1730469600"),
    ("timestamp", "2024-11-01"),
    ("timestamp", "yesterday"),
    ("timestamp", "2024-13-01T00:00:00Z"),
    ("timestamp", "2024-11-01T25:00:00Z"),
    ("timestamp", "0001-01-01T00:00:00+14:00"),
    ("timestamp", "9999-12-31T23:59:59-14:00"),
    ("timestamp", "12024-11-01T14:00:00Z"),
    ("timestamp", "2024-11-01T14:00:00Z\n"),
    ("send_at", "2024-11-01T14:00:00"),
    ("send_at", "tomorrow"),
    ("send_at", 1_730_469_600),
    ("priority", "urgent"),
    ("priority", ["bulk"]),
    ("colour", "blue"),
]
INVALID_EMAIL_FIELDS: list[tuple[str, object]] = [
    ("from", MISSING),
    ("from", "nobody"),
    ("from", "a@b"),
    ("from", "a@b.com, c@d.com"),
    ("from", "[a@b.com](https://example.com)"),
    ("to", "a@b.com\r\nBcc: c@d.com"),
    ("to", "x" * 310 + "@example.com"),
    ("type", "sms"),
    ("subject", 7),
    ("subject", "x" * 999),
    ("subject", "two\nlines"),
    ("subject", "\ud800"),
    ("body", "nul \x00"),
    ("xillio_id", "message-2"),
    ("to", "pepé@example.com"),
    ("from", "Pepé <pepé@example.com>"),
    ("to", "Ann <a@b.com>, Bob <c@d.com>"),
    ("to", "a@b.com, Bob <c@d.com>"),
    ("to", "Ann\r\nBcc: x <a@b.com>"),
    ("cc", "a@b.com"),
    ("cc.1", ["a@b.com", "nobody"]),
    ("bcc.0", ["pepé@example.com"]),
    ("reply_to.0", [""]),
    ("cc", [f"{number}@example.com" for number in range(51)]),
    ("body_type", "markdown"),
    ("text", "nul \x00"),
]


@pytest.mark.parametrize(("field", "value"), INVALID_SMS_FIELDS)
async def test_an_invalid_field_of_an_sms_is_named(
    client: httpx.AsyncClient, server: JetStream, field: str, value: object
) -> None:
    response = await post_json(client, SEND_SMS, changed(SMS, field, value))

    assert (response.status_code, problem_of(response)) == (422, "invalid_request")
    assert faults_of(response) == {field}
    assert server.messages(Stream.OUTBOUND) == []


@pytest.mark.parametrize(("field", "value"), INVALID_EMAIL_FIELDS)
async def test_an_invalid_field_of_an_email_is_named(
    client: httpx.AsyncClient, field: str, value: object
) -> None:
    response = await post_json(client, SEND_EMAIL, changed(EMAIL, field, value))

    assert response.status_code == 422
    assert faults_of(response) == {field}


async def test_a_plain_body_has_no_text_beside_it(client: httpx.AsyncClient) -> None:
    response = await post_json(client, SEND_EMAIL, {**EMAIL, "body_type": "text", "text": "Hello"})

    assert response.status_code == 422
    assert faults_of(response) == {"text"}


async def test_every_field_at_fault_is_named(client: httpx.AsyncClient) -> None:
    payload = {"from": "?", "to": 5, "type": "fax", "body": "x" * 1_601, "attachments": ["data:x", "a", 1]}

    response = await post_json(client, SEND_SMS, payload)

    assert faults_of(response) == {"from", "to", "type", "body", "attachments.0", "attachments.2"}


@pytest.mark.parametrize("path", SENDS)
@pytest.mark.parametrize("value", [None, [], "text", 5, True])
async def test_the_body_must_be_an_object(client: httpx.AsyncClient, path: str, value: object) -> None:
    response = await post_json(client, path, value)

    assert response.status_code == 422
    assert faults_of(response) == {"body"}


@pytest.mark.parametrize("path", SENDS)
@pytest.mark.parametrize("body", MALFORMED_JSON)
async def test_malformed_json_is_refused(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    response = await client.post(path, content=body, headers=JSON)

    assert (response.status_code, problem_of(response)) == (400, "malformed_body")
    assert faults_of(response) == set()


async def test_an_unknown_field_with_a_long_name_is_named_by_its_beginning(
    client: httpx.AsyncClient,
) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "x" * 1_000: 1})

    assert faults_of(response) == {"x" * 100}


async def test_a_field_whose_name_is_not_text_is_refused(client: httpx.AsyncClient) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "\ud800": 1})

    assert response.status_code == 422
    assert faults_of(response) == {"body"}


@pytest.mark.parametrize(("type_", "status"), [("sms", 202), ("mms", 422)])
async def test_an_alphanumeric_sender_cannot_send_mms(
    client: httpx.AsyncClient, type_: str, status: int
) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "from": "ACME", "type": type_})

    assert response.status_code == status
    if status == 422:
        assert faults_of(response) == {"type"}


async def test_an_alphanumeric_sender_cannot_send_attachments(client: httpx.AsyncClient) -> None:
    payload = {**SMS, "from": "ACME", "attachments": ["https://example.com/a.jpg"]}
    response = await post_json(client, SEND_SMS, payload)

    assert response.status_code == 422
    assert faults_of(response) == {"attachments"}


@pytest.mark.parametrize("character", ["x", "ж", "😀"])
async def test_an_sms_has_up_to_1600_characters_of_any_alphabet(
    client: httpx.AsyncClient, character: str
) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "body": character * 1_600})

    assert response.status_code == 202


@pytest.mark.parametrize("ahead", [timedelta(seconds=-61), SEND_WINDOW + timedelta(seconds=1)])
async def test_a_time_in_the_past_or_too_far_ahead_is_refused(
    client: httpx.AsyncClient, server: JetStream, ahead: timedelta
) -> None:
    for headers in ({}, {"Idempotency-Key": "a-key"}):
        payload = {**SMS, "send_at": (NOW + ahead).isoformat()}
        response = await client.post(SEND_SMS, json=payload, headers=headers)

        assert response.status_code == 422
        assert faults_of(response) == {"send_at"}
    assert server.messages(Stream.OUTBOUND) == []


@pytest.mark.parametrize("path", [SEND_SMS, SEND_EMAIL])
@pytest.mark.parametrize(
    "send_at",
    ["0001-01-01T00:00:00Z", "9999-12-31T19:59:59Z", "9999-12-31T20:00:00Z", "9999-12-31T23:59:59.999999Z"],
)
async def test_a_time_at_either_end_of_the_calendar_is_refused(
    client: httpx.AsyncClient, path: str, send_at: str
) -> None:
    for headers in ({}, {"Idempotency-Key": "a-key"}):
        payload = {**(SMS if path == SEND_SMS else EMAIL), "send_at": send_at}
        response = await client.post(path, json=payload, headers=headers)

        assert response.status_code == 422
        assert faults_of(response) == {"send_at"}


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        (timedelta(seconds=-60), "accepted"),
        (timedelta(0), "accepted"),
        (timedelta(seconds=1), "scheduled"),
        (SEND_WINDOW, "scheduled"),
    ],
)
async def test_a_time_within_the_window_is_accepted(
    client: httpx.AsyncClient, server: JetStream, ahead: timedelta, status: str
) -> None:
    send_at = NOW + ahead
    response = await client.post(SEND_SMS, json={**SMS, "send_at": send_at.isoformat()})

    assert (response.status_code, response.json()["status"]) == (202, status)
    [event] = events(server, Stream.OUTBOUND)
    assert event.data.message.send_at == send_at
    assert event.data.expires_at == max(send_at, NOW) + timedelta(hours=4)


@pytest.mark.parametrize("key", [b"", b'"', b"x" * 256, "ä".encode("latin-1")])
async def test_an_invalid_idempotency_key_is_named(client: httpx.AsyncClient, key: bytes) -> None:
    response = await client.post(SEND_SMS, json=SMS, headers=[(b"idempotency-key", key)])

    assert response.status_code == 422
    assert faults_of(response) == {"Idempotency-Key"}


async def test_a_second_idempotency_key_is_refused(client: httpx.AsyncClient) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    response = await client.post(SEND_SMS, json=SMS, headers=headers)

    assert faults_of(response) == {"Idempotency-Key"}


async def test_numbers_in_national_form_are_those_of_the_default_region() -> None:
    async with calling(create_gateway(default_region="DE")) as client:
        response = await client.post(SEND_SMS, json={**SMS, "to": "030 901820"})

    assert (response.status_code, response.json()["to"]) == (202, "+4930901820")


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "passed"),
    [
        ({"traceparent": TRACE, "nats-rollup": "all"}, {"traceparent": TRACE}),
        ({"traceparent": TRACE.upper()}, {}),
        ({"traceparent": f"{TRACE}\r\nx: y"}, {}),
        ({}, {}),
    ],
)
async def test_only_the_trace_of_the_headers_is_passed_on(
    client: httpx.AsyncClient, server: JetStream, headers: dict[str, str], passed: dict[str, str]
) -> None:
    await client.post(SEND_SMS, json=SMS, headers=headers)

    [message] = server.messages(Stream.OUTBOUND)
    assert message.headers == passed


@pytest.mark.parametrize("path", SENDS)
@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"attachments": [{}] * 60_000}, "attachments"),
        ({f"field{number}": 0 for number in range(10_000)}, "body"),
    ],
)
async def test_thousands_of_faults_are_reported_as_one(
    client: httpx.AsyncClient, path: str, fields: dict[str, object], fault: str
) -> None:
    response = await client.post(
        path, content=json.dumps({**SENDS[path], **fields}, separators=(",", ":")), headers=JSON
    )

    assert response.status_code == 422
    assert faults_of(response) == {fault}
