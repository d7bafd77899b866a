"""Sends at a later time: accepted, listed and canceled over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from nats.js import JetStreamContext
from sqlalchemy import text

from services.gateway import queries
from services.gateway.http.errors import InvalidRequestError
from services.gateway.messages.idempotency import Memory
from services.gateway.messages.service import Caller, Intake
from services.gateway.schemas import SmsSend
from shared.bus.key_value import Bucket, Values
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import IDEMPOTENCY_BUCKET, SEND_WINDOW, Stream
from shared.channels import Channel, Direction, MessageType
from shared.suppressions import SuppressionList
from shared.events import MessageAccepted, StatusChanged
from shared.ids import MessageId
from shared.ledger import Entry, Ledger, State
from shared.lifecycle import Status
from tests.integration.gateway.stored import START, Store, minutes
from tests.integration.gateway.test_gateway_intake import SMS, published

pytestmark = pytest.mark.integration

ALICE, BOB = "+12016661234", "+18045551234"
SCHEDULED = "/api/messages?status=scheduled"


def now() -> datetime:
    return datetime.now(UTC)


async def post(gateway: httpx.AsyncClient, send_at: datetime | None) -> httpx.Response:
    moment = send_at and send_at.isoformat()
    return await gateway.post("/api/messages/sms", json={**SMS, "send_at": moment})


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        (timedelta(minutes=5), "scheduled"),
        (SEND_WINDOW - timedelta(minutes=1), "scheduled"),
        (timedelta(seconds=-30), "accepted"),
    ],
)
async def test_a_message_is_accepted_for_its_time(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext, ahead: timedelta, status: str
) -> None:
    send_at = now() + ahead

    response = await post(gateway, send_at)

    assert (response.status_code, response.json()["status"]) == (202, status)
    assert datetime.fromisoformat(response.json()["send_at"]) == send_at
    [event] = await published(jetstream, Stream.OUTBOUND)
    assert isinstance(event, MessageAccepted)
    assert event.data.message.send_at == send_at
    assert event.data.expires_at == max(send_at, event.time) + timedelta(hours=4)


@pytest.mark.parametrize("ahead", [timedelta(minutes=-2), SEND_WINDOW + timedelta(minutes=1)])
async def test_a_time_that_has_passed_or_is_too_far_ahead_is_refused(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext, ahead: timedelta
) -> None:
    for headers in ({}, {"Idempotency-Key": "a-key"}):
        payload = {**SMS, "send_at": (now() + ahead).isoformat()}
        response = await gateway.post("/api/messages/sms", json=payload, headers=headers)

        assert response.status_code == 422
        assert [fault["field"] for fault in response.json()["errors"]] == ["send_at"]
    assert await published(jetstream, Stream.OUTBOUND) == []


async def test_a_repetition_after_its_time_is_the_same_message(bus: Bus, publisher: Publisher) -> None:
    clock = [now()]
    memory = Memory(Bucket(bus, publisher, IDEMPOTENCY_BUCKET))
    intake = Intake(
        publisher,
        memory,
        SuppressionList(bus, publisher),
        Values(bus, publisher, Stream.INBOUND),
        timedelta(hours=4),
        lambda: clock[0],
    )
    payload = {**SMS, "send_at": (clock[0] + timedelta(hours=1)).isoformat()}
    send = SmsSend.model_validate_json(
        httpx.Request("", "", json=payload).read(), context={"default_region": "US"}
    )
    first = await intake.send(send, Caller("a client", "a-key"))

    clock[0] += timedelta(hours=2)
    again = await intake.send(send, Caller("a client", "a-key"))
    assert (again.id, again.status, again.data.message) == (first.id, first.status, first.data.message)
    with pytest.raises(InvalidRequestError):
        await intake.send(send, Caller("a client", "another-key"))


async def store_scheduled(store: Store, due: datetime, **fields: Any) -> UUID:  # noqa: ANN401 - of a message
    """Store a message as ingest does when the gateway and the sender have spoken of it."""
    id_ = await store.message(ALICE, BOB, direction=Direction.OUTBOUND, send_at=due, **fields)
    for attempt in range(2):
        await store.event(id_, Status.SCHEDULED, attempt=attempt, next_attempt_at=due)
    return id_


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


async def test_what_waits_is_listed_the_next_one_first(gateway: httpx.AsyncClient, store: Store) -> None:
    later, sooner = now() + timedelta(hours=2), now() + timedelta(hours=1)
    last, *equals = [await store_scheduled(store, due) for due in (later, sooner, sooner, sooner)]
    overdue = await store_scheduled(store, now() - timedelta(minutes=1))
    email = await store_scheduled(store, later + timedelta(hours=1), type=MessageType.EMAIL)
    await store_scheduled(store, now() - timedelta(hours=5))  # expired
    for status in (Status.SENT, Status.CANCELED, Status.RETRYING):
        await store.event(await store_scheduled(store, sooner), status)
    await store.event(await store_scheduled(store, sooner), Status.ACCEPTED, generation=1)
    replayed = await store_scheduled(store, sooner)
    await store.event(replayed, Status.FAILED)
    await store.event(replayed, Status.SCHEDULED, generation=1, next_attempt_at=later + timedelta(minutes=1))

    assert await listed(gateway) == [overdue, *sorted(equals), last, replayed, email]
    assert await listed(gateway, "&channel=email") == [email]
    assert len(await listed(gateway, "&channel=sms")) == 6


@pytest.mark.parametrize(
    "query", ["", "?status=sent", "?status=scheduled&channel=fax", "?status=scheduled&cursor=x"]
)
async def test_other_lists_are_not_offered(gateway: httpx.AsyncClient, query: str) -> None:
    response = await gateway.get(f"/api/messages{query}")

    assert response.status_code == 422


async def test_among_many_that_were_sent_those_that_wait_are_found_by_an_index(store: Store) -> None:
    await store_scheduled(store, minutes(60))
    async with store.engine.begin() as connection:
        await connection.execute(
            text("""
                INSERT INTO message_events
                    (id, message_id, status, generation, precedence, attempt, next_attempt_at, occurred_at)
                SELECT gen_random_uuid(), md5(number::text)::uuid, status, 0, precedence, 1, '2024-01-01', now()
                FROM generate_series(1, 20000) AS number,
                    (VALUES ('scheduled', 1), ('sent', 3)) AS reports (status, precedence)
            """)
        )
    async with store.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("ANALYZE"))
        statement = queries.scheduled_messages(Channel.SMS, START, None, 50)
        compiled = statement.compile(store.engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join(await connection.scalars(text(f"EXPLAIN {compiled}".replace(":", r"\:"))))

    assert "ix_message_events_scheduled" in plan, plan
    assert "Seq Scan on message_events" not in plan, plan


async def record(
    bus: Bus, publisher: Publisher, id_: UUID, state: State, step: tuple[int, int, int] = (0, 1, 0)
) -> None:
    entry = Entry(step=step, state=state, at=now())
    await Ledger(bus, publisher).write(MessageId(id_), entry, after=None)


@pytest.mark.parametrize(
    ("state", "attempt"), [(None, 1), (State.DEFERRED, 1), (State.RETRYING, 2), (State.CANCELED, 1)]
)
async def test_a_message_that_waits_can_be_canceled(
    gateway: httpx.AsyncClient,
    store: Store,
    bus: Bus,
    publisher: Publisher,
    state: State | None,
    attempt: int,
) -> None:
    id_ = await store_scheduled(store, now() + timedelta(hours=1))
    if state is not None:
        await record(bus, publisher, id_, state)

    responses = [await gateway.delete(f"/api/messages/{id_}") for _ in range(2)]

    shown = (await gateway.get(f"/api/messages/{id_}")).json()
    del shown["history"]
    for response in responses:
        assert response.status_code == 200
        assert response.json() == {**shown, "status": "canceled"}
    [event] = await published(bus.jetstream, Stream.EVENTS)
    assert isinstance(event, StatusChanged)
    assert (event.data.status, event.data.generation, event.data.attempt) == (Status.CANCELED, 0, attempt)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (State.CLAIMED, "it is being sent"),
        (State.SENT, "it is sent"),
        (State.FAILED, "it is failed"),
        (State.EXPIRED, "it is expired"),
    ],
)
async def test_a_message_that_has_begun_cannot_be_canceled(
    gateway: httpx.AsyncClient, store: Store, bus: Bus, publisher: Publisher, state: State, says: str
) -> None:
    id_ = await store_scheduled(store, now() + timedelta(hours=1))
    await record(bus, publisher, id_, state)

    response = await gateway.delete(f"/api/messages/{id_}")

    assert response.status_code == 409
    assert says in response.json()["detail"]
    assert await published(bus.jetstream, Stream.EVENTS) == []


async def test_what_cannot_be_canceled_at_all(gateway: httpx.AsyncClient, store: Store) -> None:
    inbound = await store.message(BOB, ALICE)

    assert (await gateway.delete(f"/api/messages/{inbound}")).status_code == 409
    assert (await gateway.delete(f"/api/messages/{uuid4()}")).status_code == 404
    assert (await gateway.delete("/api/messages/1")).status_code == 404
