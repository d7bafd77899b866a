"""Replaying and discarding one dead letter."""

import base64
import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.dead_letters import unreadable
from shared.bus.topology import Stream
from shared.dead_letters import DeadLetterResolution, Origin, Resolution
from shared.errors import BadMessageError
from shared.ids import event_id
from shared.status import IN_DOUBT, Status
from tests import messages
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.dead_letters.letters import (
    PAYLOAD,
    SUBJECT,
    WEBHOOK,
    posted,
    request_of,
    undelivered,
    unknown,
)
from tests.integration.gateway.rows import START, Rows
from tests.integration.gateway.streams import count, events
from tests.webhooks import SENDGRID_EVENTS

pytestmark = pytest.mark.integration

EVENT = {"Content-Type": "application/cloudevents+json"}

REASON = {"reason": "a test"}


async def replay(gateway: httpx.AsyncClient, id_: UUID, **request: Any) -> httpx.Response:  # noqa: ANN401
    return await gateway.post(f"/api/dead-letters/{id_}/replay", **request)


async def discard(gateway: httpx.AsyncClient, id_: UUID, body: object = REASON) -> httpx.Response:
    return await gateway.post(f"/api/dead-letters/{id_}/discard", json=body)


async def resolutions(jetstream: JetStreamContext) -> list[DeadLetterResolution]:
    return [event.data for event in await events(jetstream, Stream.DEADLETTER)]


async def test_a_replay_starts_the_next_generation(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    dead_letter = undelivered(generation=2)
    await rows.dead_letter(dead_letter)

    responses = [await replay(gateway, dead_letter.id) for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 202]
    assert responses[0].json() == {
        "dead_letter_id": str(dead_letter.id),
        "message_id": str(dead_letter.message_id),
        "generation": 3,
    }
    # The second request came before ingest stored the first replay, and is the same replay.
    [event] = await events(jetstream, Stream.OUTBOUND)
    request = event.data
    assert request.message == request_of(dead_letter).message
    assert (request.generation, request.attempt, request.deferral_count, request.errors) == (3, 1, 0, [])
    assert request.expires_at > messages.now() + timedelta(hours=3)


@pytest.mark.parametrize("resolution", Resolution)
async def test_a_resolved_dead_letter_cannot_be_resolved_again(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext, resolution: Resolution
) -> None:
    dead_letter = undelivered()
    await rows.dead_letter(dead_letter)
    await rows.resolution(dead_letter, resolution)

    for response in (await replay(gateway, dead_letter.id), await discard(gateway, dead_letter.id)):
        assert (response.status_code, response.json()["code"]) == (409, "dead_letter_resolved")
        assert response.json()["detail"] == f"The dead letter was already {resolution}"
    assert await count(jetstream, Stream.OUTBOUND) == 0
    assert await count(jetstream, Stream.DEADLETTER) == 0


async def test_a_message_that_was_sent_nevertheless_is_not_replayed(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    dead_letter = undelivered(reason="ambiguous")
    message_id = request_of(dead_letter).message.id
    await rows.dead_letter(dead_letter)
    await rows.event(message_id, Status.FAILED, precedence=IN_DOUBT)
    await rows.receipt("theirs-1", Status.DELIVERED, message_id=message_id)

    single = await replay(gateway, dead_letter.id)
    bulk = await gateway.post("/api/dead-letters/replay", json={"all": True})

    assert (single.status_code, single.json()["code"]) == (409, "already_sent")
    assert [each["dead_letter_id"] for each in bulk.json()["skipped"]] == [str(dead_letter.id)]
    assert await count(jetstream, Stream.OUTBOUND) == 0
    assert (await discard(gateway, dead_letter.id)).status_code == 202


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_replay_is_recorded_with_the_name_of_the_caller(
    start_gateway: StartGateway,
    nats_url: str,
    database_url: str,
    rows: Rows,
    jetstream: JetStreamContext,
    *,
    is_read: bool,
) -> None:
    dead_letter = undelivered() if is_read else unknown()
    await rows.dead_letter(dead_letter)

    settings = {"nats_url": nats_url, "database_url": database_url, "api_keys": "support:right-key-of-shop"}
    async with start_gateway(**settings) as gateway:
        for _ in range(2):
            key = {"Authorization": "Bearer right-key-of-shop"}
            assert (await replay(gateway, dead_letter.id, headers=key)).status_code == 202

    [recorded] = await resolutions(jetstream)
    assert (recorded.dead_letter_id, recorded.resolution) == (dead_letter.id, Resolution.REPLAYED)
    assert (recorded.reason, recorded.by) == (None, "support")


async def test_a_discard_is_recorded_once_with_its_first_reason(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    dead_letter = unknown()
    await rows.dead_letter(dead_letter)

    for reason in ("of no use", "another reason"):
        response = await discard(gateway, dead_letter.id, {"reason": reason})
        assert response.status_code == 202
        assert response.json() == {"dead_letter_id": str(dead_letter.id), "message_id": None}

    [recorded] = await resolutions(jetstream)
    assert (recorded.resolution, recorded.reason) == (Resolution.DISCARDED, "of no use")
    assert recorded.by == "anonymous"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "reason"),
        ({"reason": None}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": " "}, "reason"),
        ({"reason": "nul \0"}, "reason"),
        ({"reason": "x" * 1_001}, "reason"),
        ({"reason": "x", "why": "y"}, "why"),
        ([], "body"),
    ],
)
async def test_an_invalid_field_of_a_discard_is_named(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext, body: object, field: str
) -> None:
    dead_letter = unknown()
    await rows.dead_letter(dead_letter)

    response = await discard(gateway, dead_letter.id, body)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert await count(jetstream, Stream.DEADLETTER) == 0


async def test_a_message_that_only_ingest_could_not_store_is_not_sent_again(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    event = messages.accepted()
    origin = Origin(stream="OUTBOUND", sequence=5, subject="outbound.sms.7.x", consumer="ingest-outbound")
    dead_letter = unreadable(event.encode(), BadMessageError("not_storable", "…"), origin)
    await rows.dead_letter(dead_letter)

    response = await replay(gateway, dead_letter.id)

    assert (response.status_code, response.json()["generation"]) == (202, None)
    assert (await jetstream.get_msg(Stream.OUTBOUND, 1)).data == event.encode()


async def test_a_replay_whose_record_was_not_stored_can_be_repeated(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    dead_letter = unknown()
    await rows.dead_letter(dead_letter)
    config = (await jetstream.stream_info(Stream.DEADLETTER)).config
    await jetstream.delete_stream(Stream.DEADLETTER)  # as if the gateway stopped between the two

    first = await replay(gateway, dead_letter.id)
    await jetstream.add_stream(config)
    shown = await gateway.get(f"/api/dead-letters/{dead_letter.id}")
    again = await replay(gateway, dead_letter.id)

    assert (first.status_code, shown.json()["state"], again.status_code) == (503, "open", 202)
    assert await count(jetstream, Stream.INBOUND) == 1
    assert len(await resolutions(jetstream)) == 1


@pytest.mark.parametrize("payload", [PAYLOAD, b"\xff\x00 not a text"])
async def test_an_unreadable_payload_returns_to_its_stream_unchanged(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext, payload: bytes
) -> None:
    dead_letter = unknown(payload)
    await rows.dead_letter(dead_letter)

    responses = [await replay(gateway, dead_letter.id) for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 202]
    assert await count(jetstream, Stream.INBOUND) == 1
    message = await jetstream.get_msg(Stream.INBOUND, 1)
    assert (message.subject, message.data) == (SUBJECT, payload)
    assert message.headers == {**EVENT, "Nats-Msg-Id": str(event_id(dead_letter.id, "replayed"))}


async def test_a_payload_that_was_cut_cannot_be_replayed(gateway: httpx.AsyncClient, rows: Rows) -> None:
    dead_letter = unknown(b"x" * 200_000)
    await rows.dead_letter(dead_letter)

    response = await replay(gateway, dead_letter.id)

    assert (response.status_code, response.json()["code"]) == (409, "payload_cut")
    assert "message 5 of INBOUND" in response.json()["detail"]


@pytest.mark.parametrize("stream", ["INBOUND", "ELSEWHERE"])
async def test_a_dead_letter_without_a_payload_or_of_another_stream_cannot_be_replayed(
    gateway: httpx.AsyncClient, rows: Rows, stream: str
) -> None:
    origin = Origin(stream=stream, sequence=5, subject=SUBJECT, consumer="ingest-inbound")
    payload = None if stream == "INBOUND" else base64.b64encode(PAYLOAD).decode()
    update = {"payload": None, "payload_base64": payload, "origin": origin}
    dead_letter = unknown().model_copy(update=update)
    await rows.dead_letter(dead_letter)

    response = await replay(gateway, dead_letter.id)

    assert (response.status_code, response.json()["code"]) == (409, "nothing_to_replay")


async def test_a_webhook_that_can_be_read_now_is_received_when_it_is_replayed(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    body = json.dumps({"from": "+18045551234", "to": "+12016661234", "body": "Hello"})
    dead_letter = posted(body)
    await rows.dead_letter(dead_letter)

    responses = [await replay(gateway, dead_letter.id) for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 202]
    assert responses[0].json()["generation"] is None
    [event] = await events(jetstream, Stream.INBOUND)
    assert (event.data.message.body, event.data.message.created_at) == ("Hello", START)
    assert {each.resolution for each in await resolutions(jetstream)} == {Resolution.REPLAYED}


@pytest.mark.parametrize(
    ("body", "changes", "code"),
    [
        ("{", {}, "nothing_to_replay"),
        ('{"body": "to nobody"}', {}, "nothing_to_replay"),
        ("{", {"is_cut": True}, "payload_cut"),
        ("[null]", {"webhook": WEBHOOK.model_copy(update={"path": SENDGRID_EVENTS})}, "nothing_to_replay"),
        ("{}", {"webhook": WEBHOOK.model_copy(update={"path": "/api/webhooks/gone"})}, "nothing_to_replay"),
    ],
)
async def test_a_webhook_that_still_cannot_be_read_remains_a_dead_letter(
    gateway: httpx.AsyncClient,
    rows: Rows,
    jetstream: JetStreamContext,
    body: str,
    changes: dict[str, Any],
    code: str,
) -> None:
    dead_letter = posted(body).model_copy(update=changes)
    await rows.dead_letter(dead_letter)

    response = await replay(gateway, dead_letter.id)

    assert (response.status_code, response.json()["code"]) == (409, code)
    assert await resolutions(jetstream) == []


async def test_a_dead_letter_that_is_not_stored_cannot_be_resolved(gateway: httpx.AsyncClient) -> None:
    for response in (await replay(gateway, uuid4()), await discard(gateway, uuid4())):
        assert (response.status_code, response.json()["code"]) == (404, "dead_letter_not_found")
