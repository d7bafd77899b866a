"""The bodies of webhooks: their sizes and content types, and the problems of invalid ones."""

import json

import httpx
import pytest

from shared.bus.topology import Stream
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import events as events_in
from tests.unit.gateway.requests import WEBHOOKS, changed, faults_of, post_json, problem_of
from tests.unit.gateway.webhooks.posts import BODIES, GENERIC, MEDIA_TYPES, PATHS, SENDGRID, TWILIO
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
    assert largest.status_code in {400, 422}


async def test_an_email_of_thirty_megabytes_is_accepted(client: httpx.AsyncClient, server: JetStream) -> None:
    room = MAX_SIZES[SENDGRID_INBOUND] - 4 * KIB
    largest = multipart(MAIL, {"attachment1": ("a", "b/c", b"\r\n--xYz" * (room // 7))})
    response = await client.post(SENDGRID_INBOUND, content=largest, headers=MULTIPART)

    assert response.status_code == 200
    [event] = events_in(server, Stream.INBOUND)
    [file] = event.data.raw["files"]
    assert room - 7 < file["size"] <= room


async def test_a_batch_of_events_may_be_larger_than_other_webhooks(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    batch = [{**DELIVERED, "sg_event_id": f"event-{number}", "url": "x" * 500} for number in range(900)]
    response = await client.post(SENDGRID_EVENTS, content=events(*batch), headers=JSON)

    assert response.json() == {"receipts": 900, "suppressions": 0, "invalid": 0}
    assert len(events_in(server, Stream.INBOUND)) == 900


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (GENERIC_SMS, "to", "nobody in particular"),
        (GENERIC_SMS, "messaging_provider_id", None),
        (GENERIC_SMS, "body", "nul \x00"),
        (GENERIC_SMS, "timestamp", 5),
        (GENERIC_EMAIL, "from", "nobody"),
        (GENERIC_SMS_STATUS, "status", "frobnicated"),
    ],
)
async def test_an_invalid_field_of_a_generic_webhook_is_named(
    client: httpx.AsyncClient, server: JetStream, path: str, field: str, value: object
) -> None:
    response = await post_json(client, path, changed(WEBHOOKS[path], field, value))

    assert (response.status_code, problem_of(response)) == (422, "invalid_request")
    assert faults_of(response) == {field}
    assert server.messages(Stream.INBOUND) == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (TWILIO_MESSAGES, urlencoded({**SMS, "From": "whatsapp:+18045551234"}), "From"),
        (TWILIO_MESSAGES, urlencoded({**SMS, "NumMedia": "11"}), "NumMedia"),
        (TWILIO_STATUS, urlencoded({**STATUS, "MessageSid": ""}), "MessageSid"),
        (SENDGRID_INBOUND, multipart({**MAIL, "envelope": "{}", "to": ""}), "envelope"),
        (SENDGRID_EVENTS, b"{}", "body"),
    ],
)
async def test_an_invalid_field_of_a_provider_is_named(
    client: httpx.AsyncClient, server: JetStream, path: str, body: bytes, field: str
) -> None:
    response = await client.post(path, content=body, headers=MEDIA_TYPES[path])

    assert (response.status_code, problem_of(response)) == (422, "invalid_request")
    assert faults_of(response) == {field}
    assert server.messages(Stream.INBOUND) == []


@pytest.mark.parametrize("path", GENERIC)
@pytest.mark.parametrize("value", [None, [], "text", 5, True])
async def test_the_body_of_a_generic_webhook_must_be_an_object(
    client: httpx.AsyncClient, path: str, value: object
) -> None:
    response = await post_json(client, path, value)

    assert response.status_code == 422
    assert faults_of(response) == {"body"}


async def test_a_lone_surrogate_in_an_unknown_field_is_refused(client: httpx.AsyncClient) -> None:
    payload = {**WEBHOOKS[GENERIC_SMS], "extra": ["\ud800"]}
    response = await post_json(client, GENERIC_SMS, payload)

    assert response.status_code == 422
    assert faults_of(response) == {"body"}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        *((path, b"{", JSON) for path in (*GENERIC, SENDGRID_EVENTS)),
        *((path, b"", JSON) for path in (*GENERIC, SENDGRID_EVENTS)),
        *((path, b"[" * 100_000, JSON) for path in (*GENERIC, SENDGRID_EVENTS)),
        *((path, b'{"body": "\xff"}', JSON) for path in (*GENERIC, SENDGRID_EVENTS)),
        (TWILIO_MESSAGES, b"Body=%ff", FORM),
        (TWILIO_STATUS, b"MessageSid=\xff", FORM),
        (SENDGRID_INBOUND, b"garbage", MULTIPART),
        (SENDGRID_INBOUND, BODIES[SENDGRID_INBOUND][:-10], MULTIPART),
        (SENDGRID_INBOUND, BODIES[SENDGRID_INBOUND], {"content-type": "multipart/form-data"}),
    ],
)
async def test_a_malformed_body_is_refused(
    client: httpx.AsyncClient, path: str, body: bytes, headers: dict[str, str]
) -> None:
    response = await client.post(path, content=body, headers=headers)

    assert (response.status_code, problem_of(response)) == (400, "malformed_body")
    assert response.json()["errors"] == []


@pytest.mark.parametrize("path", SENDGRID)
async def test_json_in_utf_16_is_refused(client: httpx.AsyncClient, path: str) -> None:
    body = json.dumps([DELIVERED]).encode("utf-16")
    response = await client.post(path, content=body, headers=MEDIA_TYPES[path])

    assert response.status_code == 400
