"""The Python client, with a service that fails as it is told."""

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messaging_client import (
    AsyncClient,
    Client,
    ProblemError,
    WebhookVerificationError,
    models,
    verify_webhook,
)
from messaging_client.events import EventParser
from messaging_client.fields import EmailFields, SmsFields
from standardwebhooks import Webhook

from dev.contract.openapi import openapi_document
from tests.webhooks import WEBHOOK_SECRET

sys.path.insert(0, str(Path(__file__).parents[3] / "clients" / "python"))
from unasync import PACKAGE, synchronous  # type: ignore[import-not-found]

MESSAGE = {"id": "0199b1f0-c2d4-7a3e-8f51-d6a7c3b2e940"}
SMS: Any = {"from_": "+12016661234", "to": "+18045551234", "body": "Hello"}

Answer = httpx.Response | Exception


class Service:
    """Gives some answers in turn, and remembers the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **arguments: Any) -> Any:  # noqa: ANN401 - answers need not be those of the service
        return AsyncClient(http=httpx.AsyncClient(transport=httpx.MockTransport(self)), **arguments)


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    content = {"code": code, "detail": "…", "errors": [{"field": "to", "detail": "is required"}]}
    return httpx.Response(status, json=content, headers={"x-request-id": "request-1", **headers})


BUSY = {"retry-after": "0"}


async def test_a_request_is_repeated_with_the_same_key() -> None:
    service = Service(
        problem(503, "overloaded", **BUSY),
        problem(429, "too_many", **BUSY),
        httpx.Response(202, json=MESSAGE),
    )
    async with service.client(api_key="a-key-of-some-length") as client:
        assert await client.send_sms(**SMS) == MESSAGE

    assert len({request.headers["idempotency-key"] for request in service.requests}) == 1
    assert {request.headers["authorization"] for request in service.requests} == {
        "Bearer a-key-of-some-length"
    }
    sent = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "Hello"}
    assert [json.loads(request.content) for request in service.requests] == [sent] * 3


async def test_two_messages_have_different_keys() -> None:
    service = Service(*[httpx.Response(202, json=MESSAGE) for _ in range(3)])
    async with service.client() as client:
        await client.send_sms(**SMS)
        await client.send_sms(**SMS)
        await client.send_sms(idempotency_key="mine", **SMS)

    keys = [request.headers["idempotency-key"] for request in service.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


async def test_an_error_that_lasts_is_raised() -> None:
    service = Service(*[problem(503, "overloaded", **BUSY) for _ in range(3)])
    async with service.client(max_attempts=3) as client:
        with pytest.raises(ProblemError) as error:
            await client.get_message("1")

    assert (error.value.status, error.value.code) == (503, "overloaded")
    assert len(service.requests) == 3


async def test_a_refusal_is_raised_at_once() -> None:
    service = Service(problem(422, "invalid_request"))
    async with service.client() as client:
        with pytest.raises(ProblemError, match="422 invalid_request: …; to is required") as error:
            await client.suppress_address("+1/2?3", reason="a test")

    assert error.value.request_id == "request-1"
    assert service.requests[0].url.raw_path == b"/api/suppressions/%2B1%2F2%3F3"


async def test_the_answer_of_a_proxy_is_an_error_too() -> None:
    service = Service(httpx.Response(500, text="<html>"), httpx.Response(500, json=["?"]))
    async with service.client() as client:
        for _ in range(2):
            with pytest.raises(ProblemError, match="500 http_error: Internal Server Error"):
                await client.get_message("1")


async def test_the_items_of_all_pages_are_yielded() -> None:
    service = Service(
        httpx.Response(200, json={"items": [1, 2], "next_cursor": "a b"}),
        httpx.Response(200, json={"items": [3], "next_cursor": None}),
    )
    async with service.client() as client:
        assert [item async for item in client.list_conversations(channel="sms")] == [1, 2, 3]

    assert [str(request.url.query, "ascii") for request in service.requests] == [
        "channel=sms",
        "channel=sms&cursor=a+b",
    ]


def test_the_synchronous_client_does_the_same() -> None:
    service = Service(problem(503, "overloaded", **BUSY), httpx.Response(202, json=MESSAGE))
    with Client(http=httpx.Client(transport=httpx.MockTransport(service))) as client:
        assert dict(client.send_sms(**SMS)) == MESSAGE

    assert len({request.headers["idempotency-key"] for request in service.requests}) == 1


def test_the_synchronous_client_is_up_to_date() -> None:
    written = (PACKAGE / "synchronous.py").read_text()
    generated: str = synchronous((PACKAGE / "asynchronous.py").read_text())

    assert "".join(written.split()) == "".join(generated.split()), "run clients/python/unasync.py"


EVENTS: list[dict[str, Any]] = [
    {"id": f"event-{number}", "sequence": number, "data": {"body": "a\u2028b\x85c é\\n"}}
    for number in range(1, 9)
]


def encoded(events: list[dict[str, Any]]) -> bytes:
    lines = [
        f"id: {event['sequence']}\nevent: message.received\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in events
    ]
    return (": no events\n" + ": no events\n".join(lines)).encode()


class Stream(httpx.AsyncByteStream):
    """A stream that is cut after some bytes."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content = content
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), self._size):
            yield self._content[start : start + self._size]
        raise httpx.ReadError("cut")


@given(cuts=st.lists(st.integers(0, 700), max_size=8), size=st.integers(1, 64))
async def test_a_stream_that_is_cut_anywhere_is_complete(cuts: list[int], size: int) -> None:
    def answers() -> Iterator[httpx.Response]:
        for cut in [*cuts, 10_000]:
            after = int(service.requests[-1].url.params.get("after", 0))
            content = encoded(EVENTS[after:])[:cut]
            yield httpx.Response(200, stream=Stream(content, size))

    service = Service()
    service._answers = answers()  # noqa: SLF001 - they depend on the requests
    async with service.client() as client:
        client._pause = no_pause  # noqa: SLF001 - no test sleeps
        found: list[Any] = []
        async for event in client.events():
            found.append(event)
            if event["sequence"] == EVENTS[-1]["sequence"]:
                break

    assert found == EVENTS


async def no_pause(*_: object) -> None:
    pass


async def test_a_stream_that_is_cut_before_its_first_event_continues_where_it_began() -> None:
    start = {"last-event-id": "41"}
    cut = httpx.Response(200, headers=start, stream=Stream(b": no events\n", 64))
    service = Service(cut, problem(503, "overloaded", **BUSY), problem(410, "events_expired"))
    async with service.client() as client:
        client._pause = no_pause  # noqa: SLF001 - the same
        with pytest.raises(ProblemError):
            await anext(client.events())

    assert [request.url.query for request in service.requests] == [b"", b"after=41", b"after=41"]


async def test_a_position_that_is_too_old_is_not_asked_for_again() -> None:
    service = Service(problem(410, "events_expired"))
    async with service.client() as client:
        with pytest.raises(ProblemError, match="410 events_expired"):
            await anext(client.events(after=5, types=["message.received"]))

    assert service.requests[0].url.query == b"type=message.received&after=5"


def test_the_parser_knows_the_last_complete_event() -> None:
    parser = EventParser()
    assert list(parser.feed(b"id: 1\r\ndata: {}\r\n\r\nid: 2\ndata: {}")) == []
    assert parser.last_id == "1"


def test_a_webhook_is_verified() -> None:
    body = json.dumps({"type": "message.received"})
    webhook, now = Webhook(WEBHOOK_SECRET), datetime.now(UTC)

    def headers(time: datetime) -> dict[str, str]:
        return {
            "Webhook-Id": "event-1",
            "Webhook-Timestamp": str(int(time.timestamp())),
            "Webhook-Signature": webhook.sign("event-1", time, body),
        }

    assert verify_webhook(body, headers(now), WEBHOOK_SECRET)["type"] == "message.received"
    for changed, signed in ((body + " ", now), (body, now - timedelta(minutes=6))):
        with pytest.raises(WebhookVerificationError):
            verify_webhook(changed, headers(signed), WEBHOOK_SECRET)


@cache
def schemas() -> dict[str, Any]:
    found: dict[str, Any] = openapi_document()["components"]["schemas"]
    return found


@pytest.mark.parametrize(
    ("fields", "schema"), [(SmsFields, "SmsRequest"), (EmailFields, "EmailRequest")], ids=str
)
def test_the_fields_of_sends_are_those_of_the_api(fields: Callable[..., Any], schema: str) -> None:
    properties = schemas()[schema]["properties"]
    names = {"from" if name == "from_" else name for name in get_type_hints(fields)}

    assert names | {"type"} == set(properties)


@pytest.mark.parametrize("name", ["MessageResponse", "ConversationResponse", "DeadLetterResponse", "Problem"])
def test_the_models_are_up_to_date(name: str) -> None:
    properties = schemas()[name]["properties"]

    assert set(get_type_hints(getattr(models, name))) == set(properties), "run clients/generate.sh"
