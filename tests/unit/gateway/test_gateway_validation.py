"""What the gateway refuses, and which fields it blames. Nothing here gets as far as being published."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

SMS = {
    "from": "+12016661234",
    "to": "+18045551234",
    "type": "sms",
    "body": "text message",
    "attachments": None,
    "timestamp": "2024-11-01T14:00:00Z",
}
EMAIL = {
    "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
    "to": "[contact@gmail.com](mailto:contact@gmail.com)",
    "body": "text message with or without html",
    "attachments": ["attachment-url"],
    "timestamp": "2024-11-01T14:00:00Z",
}
SMS_WEBHOOK = {**SMS, "messaging_provider_id": "message-1"}
EMAIL_WEBHOOK = {**EMAIL, "xillio_id": "message-2"}
SMS_RECEIPT = {"messaging_provider_id": "message-1", "status": "delivered"}
EMAIL_RECEIPT = {"xillio_id": "message-2", "status": "delivered"}

SEND_SMS = "/api/messages/sms"
SEND_EMAIL = "/api/messages/email"
PATHS: dict[str, dict[str, Any]] = {
    SEND_SMS: SMS,
    SEND_EMAIL: EMAIL,
    "/api/webhooks/sms": SMS_WEBHOOK,
    "/api/webhooks/email": EMAIL_WEBHOOK,
    "/api/webhooks/sms/status": SMS_RECEIPT,
    "/api/webhooks/email/status": EMAIL_RECEIPT,
}
MISSING = object()

BAD_SMS_FIELDS: list[tuple[str, object]] = [
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
    ("to", ["+18045551234"]),
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
    ("colour", "blue"),
]
BAD_EMAIL_FIELDS: list[tuple[str, object]] = [
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
]
BAD_WEBHOOK_FIELDS: list[tuple[str, str, object]] = [
    ("sms", "messaging_provider_id", MISSING),
    ("sms", "messaging_provider_id", ""),
    ("sms", "messaging_provider_id", 5),
    ("sms", "messaging_provider_id", "x" * 256),
    ("sms", "messaging_provider_id", "a\nb"),
    ("sms", "type", "email"),
    ("sms", "body", MISSING),
    ("sms", "body", "nul \x00"),
    ("sms", "to", "nobody in particular"),
    ("sms", "timestamp", 5),
    ("email", "xillio_id", MISSING),
    ("email", "from", "nobody"),
    ("sms/status", "messaging_provider_id", MISSING),
    ("sms/status", "status", MISSING),
    ("sms/status", "status", "frobnicated"),
    ("sms/status", "status", 4),
    ("sms/status", "timestamp", "soon"),
    ("sms/status", "error_code", "x" * 65),
    ("sms/status", "error_code", []),
    ("sms/status", "error_code", True),
    ("sms/status", "error_code", 2**70),
    ("email/status", "xillio_id", None),
]


def changed(payload: dict[str, Any], field: str, value: object) -> dict[str, Any]:
    name = field.partition(".")[0]
    return {key: old for key, old in {**payload, name: value}.items() if old is not MISSING}


def faults(response: httpx.Response) -> set[str]:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert set(problem) == {"type", "title", "status", "detail", "errors"}
    return {error["field"] for error in problem["errors"]}


async def post_json(client: httpx.AsyncClient, path: str, payload: object) -> httpx.Response:
    # Unlike httpx, json.dumps writes a lone surrogate down as clients do: as an escape.
    content = json.dumps(payload).encode()
    return await client.post(path, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize(("field", "value"), BAD_SMS_FIELDS)
async def test_a_bad_sms_is_refused(client: httpx.AsyncClient, field: str, value: object) -> None:
    response = await post_json(client, SEND_SMS, changed(SMS, field, value))

    assert response.status_code == 422
    assert faults(response) == {field}


@pytest.mark.parametrize(("field", "value"), BAD_EMAIL_FIELDS)
async def test_a_bad_email_is_refused(client: httpx.AsyncClient, field: str, value: object) -> None:
    response = await post_json(client, SEND_EMAIL, changed(EMAIL, field, value))

    assert response.status_code == 422
    assert faults(response) == {field}


@pytest.mark.parametrize(("path", "field", "value"), BAD_WEBHOOK_FIELDS)
async def test_a_bad_webhook_is_refused(
    client: httpx.AsyncClient, path: str, field: str, value: object
) -> None:
    path = f"/api/webhooks/{path}"
    response = await post_json(client, path, changed(PATHS[path], field, value))

    assert response.status_code == 422
    assert faults(response) == {field}


async def test_every_field_at_fault_is_named(client: httpx.AsyncClient) -> None:
    payload = {"from": "?", "to": 5, "type": "fax", "body": "x" * 1_601, "attachments": ["data:x", "a", 1]}

    response = await post_json(client, SEND_SMS, payload)

    assert faults(response) == {"from", "to", "type", "body", "attachments.0", "attachments.2"}


async def test_what_was_entered_is_not_repeated(client: httpx.AsyncClient) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "to": "topsecret"})

    assert "topsecret" not in response.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [None, [], "text", 5, True])
async def test_a_body_has_to_be_an_object(client: httpx.AsyncClient, path: str, value: object) -> None:
    response = await post_json(client, path, value)

    assert response.status_code == 422
    assert faults(response) == {"body"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'from': 1}",
        b'{"body": NaN}',
        b'{"body": Infinity}',
        b"\xef\xbb\xbf{}",
        b'{"body": "\xff"}',
        '{"body": "x"}'.encode("utf-16"),
        b'{"body": 1' + b"0" * 5_000 + b"}",
        b"[" * 100 + b"]" * 100,
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    ],
)
async def test_malformed_json_is_refused(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    response = await client.post(path, content=body, headers={"content-type": "application/json"})

    assert response.status_code == 400
    assert faults(response) == set()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json", "json"]
)
async def test_another_content_type_is_refused(
    client: httpx.AsyncClient, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = await client.post(path, content=json.dumps(PATHS[path]), headers=headers)

    assert response.status_code == 415
    assert faults(response) == set()


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON ; charset=UTF-8", "application/json;x=y"]
)
async def test_parameters_of_the_content_type_do_not_matter(
    client: httpx.AsyncClient, content_type: str
) -> None:
    response = await client.post(SEND_SMS, content=b"{", headers={"content-type": content_type})

    assert response.status_code == 400


@pytest.mark.parametrize("path", PATHS)
async def test_a_large_body_is_refused(client: httpx.AsyncClient, path: str) -> None:
    response = await post_json(client, path, {"body": "x" * 256 * 1024})

    assert response.status_code == 413
    assert faults(response) == set()


@pytest.mark.parametrize("path", PATHS)
async def test_a_large_body_of_unknown_length_is_not_read_to_its_end(
    client: httpx.AsyncClient, path: str
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_024
            yield b" " * 1_024

    response = await client.post(path, content=endless(), headers={"content-type": "application/json"})

    assert response.status_code == 413
    assert sent <= 257 * 1_024


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_goes_away_while_it_writes_is_no_fault_of_ours(app: FastAPI, path: str) -> None:
    received: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_an_unknown_field_with_a_strange_name_is_named_as_far_as_it_can_be(
    client: httpx.AsyncClient,
) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "x" * 1_000: 1})

    assert faults(response) == {"x" * 100}


async def test_a_field_name_that_is_no_text_is_refused(client: httpx.AsyncClient) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "\ud800": 1})

    assert response.status_code == 422


async def test_a_webhook_with_a_lone_surrogate_in_an_unknown_field_is_refused(
    client: httpx.AsyncClient,
) -> None:
    response = await post_json(client, "/api/webhooks/sms", {**SMS_WEBHOOK, "extra": ["\ud800"]})

    assert response.status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/messages/", 404),
        ("POST", "/api/messages/sms/", 404),
        ("PUT", "/api/messages/sms", 405),
        ("POST", "/api/messages/fax", 405),
        ("DELETE", "/api/conversations", 405),
        ("GET", "/api/messages/1", 404),
        ("GET", "/api/messages/%00", 404),
        ("GET", "/api/conversations/0", 404),
        ("GET", "/api/conversations/-1", 404),
        ("GET", "/api/conversations/1.0", 404),
        ("GET", "/api/conversations/%D9%A1", 404),
        ("GET", f"/api/conversations/{10**30}", 404),
        ("GET", f"/api/conversations/{2**63}", 404),
        ("GET", f"/api/conversations/{2**63}/messages", 404),
        ("GET", "/api/conversations/garbage/messages", 404),
        ("GET", "/api/dead-letters/garbage", 404),
        ("POST", "/api/dead-letters/garbage/replay", 404),
        ("GET", "/api/dead-letters/replay", 404),
    ],
)
async def test_what_does_not_exist(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)

    assert response.status_code == status
    assert faults(response) == set()
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/conversations?limit=0", "limit"),
        ("/api/conversations?limit=201", "limit"),
        ("/api/conversations?limit=ten", "limit"),
        (f"/api/conversations?limit={10**30}", "limit"),
        ("/api/conversations?channel=fax", "channel"),
        ("/api/conversations?participant=nobody@", "participant"),
        ("/api/conversations?participant=%00", "participant"),
        ("/api/conversations?participant=", "participant"),
        ("/api/conversations?cursor=", "cursor"),
        ("/api/conversations?cursor=garbage", "cursor"),
        ("/api/conversations?cursor=%F0%9F%98%80", "cursor"),
        ("/api/conversations/1/messages?limit=-1", "limit"),
        ("/api/conversations/1/messages?cursor=a", "cursor"),
        ("/api/dead-letters?direction=sideways", "direction"),
        ("/api/dead-letters?reason=%00", "reason"),
        ("/api/dead-letters?message_id=5", "message_id"),
        ("/api/dead-letters?state=perhaps", "state"),
        ("/api/dead-letters?cursor=a", "cursor"),
    ],
)
async def test_a_bad_query_parameter_is_named(client: httpx.AsyncClient, path: str, field: str) -> None:
    response = await client.get(path)

    assert response.status_code == 422
    assert faults(response) == {field}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("replay", {}, "body"),
        ("replay", {"all": True, "filter": {"channel": "sms"}}, "body"),
        ("replay", {"all": False}, "all"),
        ("replay", {"filter": {}}, "filter"),
        ("replay", {"filter": {"channel": None}}, "filter"),
        ("replay", {"filter": {"channel": "fax"}}, "filter.channel"),
        ("replay", {"filter": {"state": "replayed"}}, "filter.state"),
        ("replay", {"filter": {"channel": "sms"}, "limit": 0}, "limit"),
        ("replay", {"filter": {"channel": "sms"}, "limit": 1_001}, "limit"),
        ("replay", {"filter": {"channel": "sms"}, "limit": "ten"}, "limit"),
        ("replay", {"filter": {"channel": "sms"}, "cursor": "garbage"}, "cursor"),
        ("replay", {"all": True, "reason": "no reason is needed"}, "reason"),
        ("discard", {"all": True}, "reason"),
        ("discard", {"filter": {"channel": "sms", "reason": "http_500"}}, "reason"),
        ("1/discard", {}, "reason"),
        ("1/discard", {"reason": ""}, "reason"),
        ("1/discard", {"reason": " "}, "reason"),
        ("1/discard", {"reason": "nul \0"}, "reason"),
        ("1/discard", {"reason": "x" * 1_001}, "reason"),
    ],
)
async def test_what_is_wrong_with_a_resolution_is_named(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], field: str
) -> None:
    response = await post_json(client, f"/api/dead-letters/{path}", body)

    assert response.status_code == 422
    assert faults(response) == {field}


async def test_an_unforeseen_error_tells_nothing(client: httpx.AsyncClient) -> None:
    response = await post_json(client, SEND_SMS, SMS)

    assert response.status_code == 500
    assert faults(response) == set()
    assert "intake" not in response.text


@pytest.mark.parametrize(("type_", "status"), [("sms", 500), ("mms", 422)])
async def test_an_alphanumeric_sender_sends_no_mms(
    client: httpx.AsyncClient, type_: str, status: int
) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "from": "ACME", "type": type_})

    assert response.status_code == status  # 500: it got past the checks
    assert faults(response) == ({"type"} if status == 422 else set())


@pytest.mark.parametrize("character", ["x", "ж", "😀"])
async def test_an_sms_may_have_1600_characters_of_any_alphabet(
    client: httpx.AsyncClient, character: str
) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "body": character * 1_600})

    assert response.status_code == 500  # it got past the checks


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/messages/1", "DELETE, GET"),
        ("/api/messages", "GET"),
        ("/api/messages/sms", "POST"),
        ("/api/webhooks/sms", "POST"),
    ],
)
async def test_what_is_not_allowed_says_what_is(client: httpx.AsyncClient, path: str, methods: str) -> None:
    response = await client.put(path)

    assert (response.status_code, response.headers["allow"]) == (405, methods)
