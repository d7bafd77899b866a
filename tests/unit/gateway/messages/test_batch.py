"""Batches of messages: a result for each of them, and one publication for all."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from shared.bus.topology import Stream
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import NOW, calling, create_gateway, events
from tests.unit.gateway.requests import EMAIL, SMS, faults_of, problem_of
from tests.webhooks import GENERIC_EMAIL, JSON

PATH = "/api/messages/batch"
KEY = {"Idempotency-Key": "a-key"}


@pytest.fixture
async def client(server: JetStream, later: "Clock") -> AsyncIterator[httpx.AsyncClient]:
    async with calling(create_gateway(server, clock=later)) as client:
        yield client


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> Any:  # noqa: ANN401 - a time
        return self.now


@pytest.fixture
def later() -> Clock:
    return Clock()


async def send(client: httpx.AsyncClient, *messages: object, **headers: str) -> list[dict[str, Any]]:
    response = await client.post(PATH, json={"messages": messages}, headers=headers)
    assert response.status_code == 202, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    assert len(items) == len(messages)
    return items


async def opt_out(client: httpx.AsyncClient, address: str) -> None:
    response = await client.put(f"/api/suppressions/{address}", json={"reason": "a test"})
    assert response.is_success


async def test_each_message_is_accepted_or_refused_by_itself(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    await opt_out(client, "+18045550009")
    late = (NOW + timedelta(days=9)).isoformat()

    items = await send(
        client,
        SMS,
        {**SMS, "to": "nobody", "body": ""},
        EMAIL,
        {**SMS, "to": "+18045550009"},
        {**SMS, "send_at": late},
        "a text",
        {**SMS, "body": "x", "attachments": ["a"] * 1_000},
        {**EMAIL, "body": "x" * 300_000},
        {**SMS, "type": "pigeon"},
    )

    accepted = [item["message"] for item in items if item["problem"] is None]
    assert [message["type"] for message in accepted] == ["sms", "email"]
    assert [item["problem"] and item["problem"]["code"] for item in items] == [
        *(None, "invalid_request", None, "recipient_opted_out"),
        *("invalid_request", "invalid_request", "invalid_request", "body_too_large", "invalid_request"),
    ]
    assert [error["field"] for error in items[1]["problem"]["errors"]] == ["to"]
    assert all(item["message"] is None for item in items if item["problem"])
    published = events(server, Stream.OUTBOUND)
    assert [str(event.data.message.id) for event in published] == [message["id"] for message in accepted]


async def test_what_cannot_be_a_message_is_refused_by_itself(client: httpx.AsyncClient) -> None:
    body = b'{"messages": [{"from": "\\ud800"}, {"body": 1' + b"0" * 99 + b"}, null, {}]}"

    response = await client.post(PATH, content=body, headers=JSON)

    assert response.status_code == 202, response.text
    problems = [item["problem"] for item in response.json()["items"]]
    assert [problem["code"] for problem in problems] == ["invalid_request"] * 4
    assert {error["field"] for error in problems[0]["errors"]} == {"from", "to"}


async def test_the_messages_of_a_batch_are_bulk_by_default(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    items = await send(client, SMS, {**SMS, "priority": "transactional"})

    assert [item["message"]["priority"] for item in items] == ["bulk", "transactional"]
    subjects = [message.subject.split(".")[2] for message in server.messages(Stream.OUTBOUND)]
    assert subjects == ["bulk", "transactional"]


def without_request_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**item, "problem": {**(item["problem"] or {}), "request_id": None}} for item in items]


async def test_a_batch_with_the_same_key_gets_the_same_response(
    client: httpx.AsyncClient, server: JetStream, later: Clock
) -> None:
    await opt_out(client, "+18045550009")
    messages = (SMS, EMAIL, {**SMS, "to": "+18045550009"}, {**SMS, "to": "nobody"})
    first = await send(client, *messages, **KEY)
    await client.delete("/api/suppressions/+18045550009")
    await opt_out(client, "+18045551234")
    later.now += timedelta(hours=3)

    assert without_request_ids(await send(client, *messages, **KEY)) == without_request_ids(first)
    assert len({event.id for event in events(server, Stream.OUTBOUND)}) == 2
    other = await client.post(PATH, json={"messages": [SMS]}, headers=KEY)
    assert problem_of(other) == "invalid_request"
    assert faults_of(other) == {"Idempotency-Key"}


async def test_a_repeated_answer_to_a_batch_says_so(client: httpx.AsyncClient) -> None:
    answers = [await client.post(PATH, json={"messages": [SMS]}, headers=KEY) for _ in range(2)]

    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true"]


async def test_an_email_of_a_batch_answers_the_newest_one_that_was_known_when_it_was_accepted(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    inbound = {**EMAIL, "from": "contact@gmail.com", "to": "user@usehatchapp.com"}
    for number, subject in enumerate(("Offer", "Another offer")):
        webhook = {**inbound, "subject": subject, "xillio_id": f"message-{number}"}
        assert (await client.post(GENERIC_EMAIL, json=webhook)).is_success
        [item] = await send(client, EMAIL, **KEY)

        assert item["message"]["subject"] == "Re: Offer"
    assert {event.data.message.subject for event in events(server, Stream.OUTBOUND)} == {"Re: Offer"}


async def test_a_single_message_may_have_the_key_of_a_batch(client: httpx.AsyncClient) -> None:
    await send(client, SMS, **KEY)

    assert (await client.post("/api/messages/sms", json=SMS, headers=KEY)).status_code == 202


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"messages": []}, 422),
        ({"messages": [SMS] * 501}, 422),
        ({"messages": SMS}, 422),
        ({}, 422),
        ({"messages": [SMS], "key": 1}, 422),
        ({"messages": [{**EMAIL, "body": "x" * 4 * 1024 * 1024}]}, 413),
    ],
)
async def test_an_invalid_batch_is_refused_as_a_whole(
    client: httpx.AsyncClient, server: JetStream, body: object, status: int
) -> None:
    response = await client.post(PATH, json=body)

    assert response.status_code == status
    assert events(server, Stream.OUTBOUND) == []


async def test_a_batch_has_up_to_500_messages(client: httpx.AsyncClient, server: JetStream) -> None:
    items = await send(client, *[{**SMS, "reference": str(number)} for number in range(500)])

    assert [item["message"]["reference"] for item in items] == [str(number) for number in range(500)]
    assert len(events(server, Stream.OUTBOUND)) == 500
