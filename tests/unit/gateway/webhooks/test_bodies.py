"""The bodies of webhooks: their sizes and content types, and the dead letters of unreadable ones."""

import json
from collections.abc import Mapping
from random import Random

import httpx
import pytest

from shared.bus.dead_letters import original_payload
from shared.bus.topology import Stream
from shared.dead_letters import DeadLetter
from shared.providers.generic import receive
from shared.text import NOT_A_LINE
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import NOW
from tests.unit.gateway.in_memory import events as events_in
from tests.unit.gateway.requests import MISSING, WEBHOOKS, changed, post_json, problem_of
from tests.unit.gateway.webhooks.posts import BODIES, GENERIC, MEDIA_TYPES, PATHS, TWILIO
from tests.webhooks import (
    DELIVERED,
    FORM,
    GENERIC_EMAIL,
    GENERIC_SMS,
    GENERIC_SMS_STATUS,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    events,
    multipart,
    urlencoded,
)

KIB = 1_024
MAX_SIZES = {
    **dict.fromkeys(GENERIC, 256 * KIB),
    GENERIC_EMAIL: 4 * KIB * KIB,
    **dict.fromkeys(TWILIO, 64 * KIB),
    SENDGRID_INBOUND: 30 * KIB * KIB,
    SENDGRID_EVENTS: KIB * KIB,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/json", "application/x-www-form-urlencoded", "multipart/form-data"],
)
async def test_each_webhook_accepts_one_content_type(
    client: httpx.AsyncClient, path: str, content_type: str
) -> None:
    expected = MEDIA_TYPES[path]["content-type"].partition(";")[0]
    response = await client.post(path, content=BODIES[path], headers={"content-type": content_type})

    if content_type == expected:
        assert response.status_code != 415
    else:
        assert (response.status_code, problem_of(response)) == (415, "unsupported_content_type")
        assert response.json()["detail"] == f"The content type must be {expected}"


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_above_the_limit_of_its_webhook_is_refused(client: httpx.AsyncClient, path: str) -> None:
    size = MAX_SIZES[path]
    too_large = await client.post(path, content=b" " * (size + 1), headers=MEDIA_TYPES[path])
    largest = await client.post(path, content=b" " * size, headers=MEDIA_TYPES[path])

    assert (too_large.status_code, problem_of(too_large)) == (413, "body_too_large")
    assert too_large.json()["detail"] == f"The body is larger than {size} bytes"
    assert largest.is_success


async def test_an_email_of_thirty_megabytes_is_accepted(client: httpx.AsyncClient, server: JetStream) -> None:
    room = MAX_SIZES[SENDGRID_INBOUND] - 4 * KIB
    largest = multipart(MAIL, {"attachment1": ("a", "b/c", b"\r\n--xYz" * (room // 7))})
    response = await client.post(SENDGRID_INBOUND, content=largest, headers=MULTIPART)

    assert response.status_code == 200
    [event] = events_in(server, Stream.INBOUND)
    [file] = event.data.raw["files"]
    assert room - 7 < file["size"] <= room


async def test_a_long_text_is_cut_to_what_a_stream_can_hold(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    payload = {**WEBHOOKS[GENERIC_EMAIL], "body": "ä<" * 200_000, "more": {"a": ["b" * 500_000]}}
    response = await client.post(GENERIC_EMAIL, content=json.dumps(payload).encode(), headers=JSON)

    assert response.status_code == 200
    [event] = events_in(server, Stream.INBOUND)
    message = event.data.message
    assert len(message.body.encode()) in range(200 * KIB, 256 * KIB + 1)
    assert message.body == payload["body"][: len(message.body)]
    assert message.warnings == [f"body: only the first {len(message.body)} of 400000 characters were kept"]
    assert event.data.raw["cut"] == ["more", "body"]


async def test_a_batch_of_events_may_be_larger_than_other_webhooks(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    batch = [{**DELIVERED, "sg_event_id": f"event-{number}", "url": "x" * 500} for number in range(900)]
    response = await client.post(SENDGRID_EVENTS, content=events(*batch), headers=JSON)

    assert response.json() == {"receipts": 900, "suppressions": 0, "invalid": 0}
    assert len(events_in(server, Stream.INBOUND)) == 900


# --- Dead letters ---


async def post_unreadable(
    client: httpx.AsyncClient, server: JetStream, path: str, body: bytes, headers: Mapping[str, str]
) -> DeadLetter:
    """Post a webhook twice, and return its only dead letter."""
    for _ in range(2):
        response = await client.post(path, content=body, headers=headers)
        assert response.is_success
    assert server.messages(Stream.INBOUND) == []
    [event] = events_in(server, Stream.DEADLETTER)
    dead_letter: DeadLetter = event.data
    if path == TWILIO_MESSAGES:
        assert (response.status_code, response.text) == (200, "<Response/>")
    else:
        assert (response.status_code, response.json()) == (202, {"dead_letter_id": str(dead_letter.id)})
    assert original_payload(dead_letter) == (body[: 128 * KIB] if dead_letter.is_cut else body)
    assert dead_letter.webhook
    assert (dead_letter.webhook.path, dead_letter.webhook.received_at) == (path, NOW)
    assert dead_letter.webhook.content_type == headers["content-type"]
    return dead_letter


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (GENERIC_SMS, "to", MISSING),
        (GENERIC_SMS, "to", ""),
        (GENERIC_SMS, "to", ["", None, {}]),
        (GENERIC_EMAIL, "to", {}),
        (GENERIC_EMAIL, "from", 1.5),
        (GENERIC_SMS_STATUS, "messaging_provider_id", MISSING),
    ],
)
async def test_a_webhook_of_which_nothing_can_be_made_is_kept(
    client: httpx.AsyncClient, server: JetStream, path: str, field: str, value: object
) -> None:
    body = json.dumps(changed(WEBHOOKS[path], field, value)).encode()
    dead_letter = await post_unreadable(client, server, path, body, JSON)

    assert dead_letter.reason == "webhook_invalid"
    assert dead_letter.detail.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (TWILIO_MESSAGES, urlencoded({**SMS, "NumMedia": "11"}), "NumMedia"),
        (TWILIO_STATUS, urlencoded({**STATUS, "MessageSid": ""}), "MessageSid"),
        (SENDGRID_INBOUND, multipart({**MAIL, "envelope": "{}", "to": ""}), "envelope"),
        (SENDGRID_EVENTS, b"{}", "body"),
    ],
)
async def test_an_invalid_webhook_of_a_provider_is_kept(
    client: httpx.AsyncClient, server: JetStream, path: str, body: bytes, field: str
) -> None:
    dead_letter = await post_unreadable(client, server, path, body, MEDIA_TYPES[path])

    assert dead_letter.reason == "webhook_invalid"
    assert dead_letter.detail.startswith(f"{field}: ")


@pytest.mark.parametrize("path", GENERIC)
@pytest.mark.parametrize("value", [None, [], "text", 5, True])
async def test_json_that_is_not_an_object_is_kept(
    client: httpx.AsyncClient, server: JetStream, path: str, value: object
) -> None:
    dead_letter = await post_unreadable(client, server, path, json.dumps(value).encode(), JSON)

    assert dead_letter.detail.startswith("body: ")


async def test_a_lone_surrogate_in_an_unknown_field_is_replaced(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    response = await post_json(client, GENERIC_SMS, {**WEBHOOKS[GENERIC_SMS], "extra": ["\ud800"]})

    assert response.status_code == 200
    [event] = events_in(server, Stream.INBOUND)
    assert event.data.raw["extra"] == ["\ufffd"]


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        *((path, b"{", JSON) for path in (*GENERIC, SENDGRID_EVENTS)),
        *((path, b"", JSON) for path in (*GENERIC, SENDGRID_EVENTS)),
        *((path, b"[" * 200_000, JSON) for path in (*GENERIC, SENDGRID_EVENTS)),
        (TWILIO_MESSAGES, b"Body=%ff", FORM),
        (TWILIO_STATUS, b"MessageSid=\xff", FORM),
        (SENDGRID_INBOUND, b"garbage", MULTIPART),
        (SENDGRID_INBOUND, BODIES[SENDGRID_INBOUND][:-10], MULTIPART),
        (SENDGRID_INBOUND, BODIES[SENDGRID_INBOUND], {"content-type": "multipart/form-data"}),
    ],
)
async def test_a_body_in_another_format_is_kept(
    client: httpx.AsyncClient, server: JetStream, path: str, body: bytes, headers: dict[str, str]
) -> None:
    dead_letter = await post_unreadable(client, server, path, body, headers)

    assert dead_letter.reason == "webhook_unreadable"


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (GENERIC_EMAIL, "from", "A\ud83d <a@b.example>"),
        (GENERIC_EMAIL, "from", "A\0 <a@b.example>"),
        (GENERIC_EMAIL, "from", "Ann\r\n <a@b.example>"),
        (GENERIC_EMAIL, "from", f"{'n' * 1_000_000} <a@b.example>"),
        (GENERIC_EMAIL, "from", f"{'@' * 500_000} <a@b.example>"),
        (GENERIC_EMAIL, "from", "\u0301\u0323" * 200_000),
        (GENERIC_EMAIL, "body", "\u0301\u0323" * 100_000),
        (GENERIC_SMS, "body", "\u0301\u0323" * 20_000),
        (GENERIC_SMS, "from", "\u200b" * 20_000 + "+18045551234"),
        (GENERIC_SMS, "attachments", [0] * 40_000),
    ],
)
async def test_no_value_is_too_long_or_too_strange(
    client: httpx.AsyncClient, server: JetStream, path: str, field: str, value: object
) -> None:
    response = await post_json(client, path, changed(WEBHOOKS[path], field, value))

    assert response.status_code == 200
    [event] = events_in(server, Stream.INBOUND)
    message = event.data.message
    assert len(message.from_) <= 320
    assert not NOT_A_LINE.search(f"{message.from_}{message.from_name}")
    assert len(message.warnings) <= 5


async def test_a_defect_of_a_parser_does_not_lose_a_webhook(
    client: httpx.AsyncClient, server: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(receive, "members_of", fail)
    dead_letter = await post_unreadable(client, server, GENERIC_SMS, BODIES[GENERIC_SMS], JSON)

    assert dead_letter.detail == "The parser failed: ZeroDivisionError"


@pytest.mark.parametrize(
    ("body", "is_cut"),
    [
        (Random(1).randbytes(128 * KIB), False),
        (Random(1).randbytes(450 * KIB), False),
        (Random(1).randbytes(454 * KIB), True),
        (json.dumps(["\x01é" * 300 * KIB]).encode(), False),
    ],
)
async def test_a_long_body_is_kept_whole_if_a_nats_message_can_hold_it(
    client: httpx.AsyncClient, server: JetStream, *, body: bytes, is_cut: bool
) -> None:
    longest = f"{SENDGRID_INBOUND}?{'%01' * 20_000}"
    response = await client.post(longest, content=body, headers=MULTIPART)

    assert response.status_code == 202
    [event] = events_in(server, Stream.DEADLETTER)
    assert event.data.is_cut is is_cut
    assert original_payload(event.data) == (body[: 128 * KIB] if is_cut else body)
