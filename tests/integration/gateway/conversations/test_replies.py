"""Replies into a conversation."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.topology import Stream
from shared.channels import Direction
from tests.integration.gateway.rows import Rows, key_of, minutes
from tests.integration.gateway.streams import count, events
from tests.messages import ALICE, BOB

pytestmark = pytest.mark.integration

ANN, BEN = "ann@example.com", "Ben@example.org"
OUTBOUND = {"direction": Direction.OUTBOUND}


@pytest.mark.parametrize("reference", [1, key_of(ALICE, BOB)])
@pytest.mark.parametrize(("addresses", "fields"), [((BOB, ALICE), {}), ((ALICE, BOB), OUTBOUND)])
async def test_a_reply_is_sent_from_our_address_to_the_other_one(
    gateway: httpx.AsyncClient,
    rows: Rows,
    jetstream: JetStreamContext,
    addresses: tuple[str, str],
    fields: dict[str, Any],
    reference: object,
) -> None:
    await rows.message(*addresses, **fields)

    response = await gateway.post(
        f"/api/conversations/{reference}/messages", json={"body": "Yes", "reference": "order-17"}
    )

    assert response.status_code == 202, response.text
    [event] = await events(jetstream, Stream.OUTBOUND)
    message = event.data.message
    assert (message.from_, message.to, message.body, message.reference) == (ALICE, BOB, "Yes", "order-17")
    assert response.json()["conversation_key"] == str(key_of(ALICE, BOB))
    assert response.headers["location"] == f"/api/messages/{message.id}"


async def test_a_reply_may_be_an_email_with_copies(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    await rows.message(BEN, ANN)

    response = await gateway.post(
        "/api/conversations/1/messages", json={"body": "Yes", "cc": ['"Doe, Cy" <cy@example.com>']}
    )

    assert response.status_code == 202, response.text
    assert response.json()["cc"] == ['"Doe, Cy" <cy@example.com>']
    [event] = await events(jetstream, Stream.OUTBOUND)
    assert (event.data.message.from_, event.data.message.to) == (ANN, BEN)


async def test_a_reply_with_the_same_key_is_one_message_whatever_arrives_in_the_meantime(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    key = {"Idempotency-Key": "a-key"}
    await rows.message("ben@example.org", ANN)
    first = await gateway.post("/api/conversations/1/messages", json={"body": "Yes"}, headers=key)
    await rows.message(BEN, ANN, timestamp=minutes(1))

    again = await gateway.post("/api/conversations/1/messages", json={"body": "Yes"}, headers=key)
    other = await gateway.post("/api/conversations/1/messages", json={"body": "No"}, headers=key)

    assert again.content == first.content
    assert other.status_code == 422
    assert await count(jetstream, Stream.OUTBOUND) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"body": "Yes", "to": "+18045550000"}, "to"),
        ({"body": "Yes", "subject": "Hello"}, "subject"),
        ({"body": "x" * 1_601}, "body"),
        ({}, "body"),
    ],
)
async def test_an_invalid_reply_names_the_field(
    gateway: httpx.AsyncClient, rows: Rows, body: object, field: str
) -> None:
    await rows.message(BOB, ALICE)

    response = await gateway.post("/api/conversations/1/messages", json=body)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_there_is_no_reply_without_a_conversation(gateway: httpx.AsyncClient) -> None:
    for reference in (1, uuid4(), "first"):
        response = await gateway.post(f"/api/conversations/{reference}/messages", json={"body": "Yes"})

        assert (response.status_code, response.json()["code"]) == (404, "conversation_not_found")
