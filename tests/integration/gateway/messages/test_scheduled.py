"""The list of scheduled messages."""

from datetime import datetime, timedelta
from uuid import UUID

import httpx
import pytest
from nats.js import JetStreamContext

from services.gateway.http.errors import InvalidRequestError
from services.gateway.messages.idempotency import IdempotencyStore, StoredRequest
from services.gateway.messages.schemas import SmsRequest
from services.gateway.messages.service import MessageService
from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore
from shared.bus.publisher import Publisher
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import IDEMPOTENCY_BUCKET, Stream
from shared.events import Event
from shared.message import IncomingMessage
from shared.status import Status
from shared.validation import context_of
from tests.integration.gateway.messages.scheduled import insert_scheduled
from tests.integration.gateway.rows import Rows
from tests.integration.gateway.streams import events
from tests.messages import ALICE, BOB, now

pytestmark = pytest.mark.integration

SMS = {"from": ALICE, "to": BOB, "type": "sms", "body": "text message"}
SCHEDULED = "/api/messages?status=scheduled"


async def test_a_message_is_scheduled_for_its_time(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    send_at = now() + timedelta(minutes=5)

    response = await gateway.post("/api/messages/sms", json={**SMS, "send_at": send_at.isoformat()})

    assert (response.status_code, response.json()["status"]) == (202, "scheduled")
    assert datetime.fromisoformat(response.json()["send_at"]) == send_at
    [event] = await events(jetstream, Stream.OUTBOUND)
    assert event.data.message.send_at == send_at
    assert event.data.expires_at == send_at + timedelta(hours=4)


async def test_a_repetition_after_its_time_is_the_same_message(bus: Bus, publisher: Publisher) -> None:
    time = now()
    requests = KeyValueStore.bucket(bus, publisher, IDEMPOTENCY_BUCKET, StoredRequest)
    service = MessageService(
        publisher,
        IdempotencyStore(requests),
        SuppressionList(bus, publisher),
        KeyValueStore(bus, publisher, Stream.INBOUND, Event[IncomingMessage]),
        timedelta(hours=4),
        lambda _: True,
        lambda: time,
    )
    payload = {**SMS, "send_at": (time + timedelta(hours=1)).isoformat()}
    body = SmsRequest.model_validate(payload, context=context_of("US"))
    first, _ = await service.send(body, caller="a client", idempotency_key="a-key", trace={})

    time += timedelta(hours=2)
    again, is_replayed = await service.send(body, caller="a client", idempotency_key="a-key", trace={})
    assert is_replayed
    assert (again.id, again.time, again.data.message) == (first.id, first.time, first.data.message)
    with pytest.raises(InvalidRequestError):
        await service.send(body, caller="a client", idempotency_key="another-key", trace={})


async def listed(gateway: httpx.AsyncClient, query: str = "") -> list[UUID]:
    """List the scheduled messages, in pages of two."""
    found: list[UUID] = []
    cursor = ""
    while True:
        response = await gateway.get(f"{SCHEDULED}&limit=2{query}{cursor}")
        assert response.status_code == 200, response.text
        page = response.json()
        assert {item["status"] for item in page["items"]} <= {"scheduled"}
        found += [UUID(item["id"]) for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_scheduled_messages_are_listed_soonest_first(gateway: httpx.AsyncClient, rows: Rows) -> None:
    later, sooner = now() + timedelta(hours=2), now() + timedelta(hours=1)
    last, *equals = [await insert_scheduled(rows, due) for due in (later, sooner, sooner, sooner)]
    overdue = await insert_scheduled(rows, now() - timedelta(minutes=1))
    email = await insert_scheduled(
        rows, later + timedelta(hours=1), from_="ann@example.com", to="ben@example.org"
    )
    await insert_scheduled(rows, now() - timedelta(hours=5))  # expired
    for status in (Status.SENT, Status.CANCELED, Status.RETRYING):
        await rows.event(await insert_scheduled(rows, sooner), status)
    await rows.event(await insert_scheduled(rows, sooner), Status.ACCEPTED, generation=1)
    replayed = await insert_scheduled(rows, sooner)
    await rows.event(replayed, Status.FAILED)
    await rows.event(replayed, Status.SCHEDULED, generation=1, next_attempt_at=later + timedelta(minutes=1))

    assert await listed(gateway) == [overdue, *sorted(equals), last, replayed, email]
    assert await listed(gateway, "&channel=email") == [email]
    assert len(await listed(gateway, "&channel=sms")) == 6
    assert await listed(gateway, "&address=ann%40example.com") == [email]
    assert await listed(gateway, "&direction=inbound") == []
