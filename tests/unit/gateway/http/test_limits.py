"""The size and the content type of bodies."""

import json
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import Message

from services.gateway.http.limits import BodyLimits, BodyRule
from tests.unit.gateway.in_memory import calling, create_gateway
from tests.unit.gateway.requests import BODIES, SEND_SMS, SENDS, SMS, WEBHOOKS, post_json, problem_of
from tests.webhooks import GENERIC_EMAIL, JSON

KIB = 1_024
DISCARD = "/api/dead-letters/1/discard"
SUPPRESS = "/api/suppressions/+18045551234"
OTHER_TYPES = [
    None,
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "text/html+json+x",
    "+json",
    "json",
]

LIMITED = [*sorted(BODIES.keys() - {GENERIC_EMAIL}), DISCARD]
"""The paths with the usual limit."""


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("content_type", OTHER_TYPES)
async def test_another_content_type_is_refused(
    client: httpx.AsyncClient, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = await client.post(path, content=json.dumps(BODIES[path]), headers=headers)

    assert (response.status_code, problem_of(response)) == (415, "unsupported_content_type")
    assert response.json()["detail"] == "The content type must be application/json"


@pytest.mark.parametrize(("method", "path"), [("POST", DISCARD), ("PUT", SUPPRESS)])
async def test_another_content_type_is_refused_at_paths_with_parameters(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    headers = {"content-type": "text/plain"}
    response = await client.request(method, path, content=b'{"reason": "x"}', headers=headers)

    assert response.status_code == 415


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON ; charset=UTF-8",
        "application/json;x=y",
        "text/json",
        "application/cloudevents+json",
    ],
)
async def test_parameters_of_the_content_type_do_not_matter(
    client: httpx.AsyncClient, content_type: str
) -> None:
    content = json.dumps(SMS)
    response = await client.post(SEND_SMS, content=content, headers={"content-type": content_type})

    assert response.status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", SUPPRESS, 204),
        ("PATCH", SUPPRESS, 405),
        ("POST", "/api/webhooks/twilio/mesages", 404),
    ],
)
async def test_a_body_that_nothing_reads_is_not_checked(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    content = b"x" * 257 * KIB
    response = await client.request(method, path, content=content, headers={"content-type": "text/plain"})

    assert response.status_code == status


async def test_a_request_without_a_body_needs_no_content_type(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/dead-letters/1/replay", headers={"content-length": "0"})

    assert response.status_code == 404


@pytest.mark.parametrize("path", LIMITED)
async def test_a_large_body_is_refused(client: httpx.AsyncClient, path: str) -> None:
    response = await post_json(client, path, {"body": "x" * 256 * KIB})

    assert (response.status_code, problem_of(response)) == (413, "body_too_large")
    assert response.json()["detail"] == "The body is larger than 262144 bytes"


@pytest.mark.parametrize("path", LIMITED)
async def test_a_large_body_of_unknown_length_is_not_read_to_its_end(
    client: httpx.AsyncClient, path: str
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += KIB
            yield b" " * KIB

    response = await client.post(path, content=endless(), headers=JSON)

    assert (response.status_code, problem_of(response)) == (413, "body_too_large")
    assert sent <= 257 * KIB


async def test_a_body_of_unknown_length_that_is_small_enough_is_accepted(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in json.dumps(SMS).encode():
            yield bytes([byte])

    response = await client.post(SEND_SMS, content=chunks(), headers=JSON)

    assert response.status_code == 202


@pytest.mark.parametrize("length", [b"", b"-1", b"soon", b"+9", "٣".encode()])
async def test_a_malformed_length_is_ignored_and_the_body_counted(length: bytes) -> None:
    headers = {b"content-type": b"application/json", b"content-length": length}
    response = await call_limited(headers, [b"x" * 8, b"x" * 3])

    assert response == 413


@pytest.mark.parametrize(
    ("chunks", "status"),
    [([b"x" * 10], 200), ([b"x" * 4] * 2 + [b"xx"], 200), ([b"x" * 11], 413), ([b"x" * 6] * 2, 413)],
)
async def test_the_limit_is_inclusive(chunks: list[bytes], status: int) -> None:
    assert await call_limited({b"content-type": b"application/json"}, chunks) == status


async def test_an_enormous_length_is_refused() -> None:
    headers = {b"content-type": b"application/json", b"content-length": b"9" * 5_000}

    assert await call_limited(headers, [b"x"]) == 413


async def call_limited(headers: Mapping[bytes, bytes], chunks: list[bytes]) -> int:
    """Post to an application that reads bodies of up to 10 bytes; return the status of its response."""
    app = FastAPI()
    app.add_middleware(BodyLimits, rules={"/api/echo": BodyRule(max_size=10)})

    @app.post("/api/echo")
    async def echo(request: Request) -> None:
        await request.body()

    received: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, start=1)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/echo",
        "query_string": b"",
        "headers": list(headers.items()),
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("path", [*SENDS, *WEBHOOKS])
async def test_a_client_that_disconnects_while_it_sends_the_body_gets_a_400(app: FastAPI, path: str) -> None:
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
    assert json.loads(sent[1]["body"])["code"] == "incomplete_body"


@pytest.mark.parametrize(
    ("method", "path"), [*(("POST", path) for path in SENDS), ("POST", DISCARD), ("PUT", SUPPRESS)]
)
async def test_the_api_key_is_checked_before_the_body(method: str, path: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("the body is read")
        yield b""

    async with calling(create_gateway(api_keys="shop:right-key-of-shop")) as client:
        malformed = await client.request(method, path, content=b"{", headers=JSON)
        large = await client.request(method, path, content=b"x" * 257 * KIB, headers=JSON)
        other = await client.request(method, path, content=b"x", headers={"content-type": "text/plain"})
        unread = await client.request(method, path, content=endless(), headers=JSON)

    assert {each.status_code for each in (malformed, large, other, unread)} == {401}
