"""Cancelling messages."""

from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import Stream
from shared.channels import Direction
from shared.ids import MessageId
from shared.ledger import Ledger
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.status import Status, Step
from tests.integration.gateway.messages.scheduled import insert_scheduled
from tests.integration.gateway.rows import Rows
from tests.integration.gateway.streams import events
from tests.messages import ALICE, BOB, now

pytestmark = pytest.mark.integration


@pytest.fixture
def ledger(bus: Bus, publisher: Publisher) -> Ledger:
    return Ledger(bus, publisher)


async def write(
    ledger: Ledger, id_: UUID, state: DeliveryState, *, generation: int = 0, in_doubt_at: str | None = None
) -> None:
    step = Step(generation, attempt=1, deferral_count=0)
    entry = LedgerEntry(step=step, state=state, at=now(), in_doubt_at=in_doubt_at)
    await ledger.write(MessageId(id_), entry, after=None)


@pytest.mark.parametrize(
    ("state", "attempt"),
    [
        (None, 1),
        (DeliveryState.DEFERRED, 1),
        (DeliveryState.RETRYING, 2),
        (DeliveryState.RELEASED, 1),
        (DeliveryState.CANCELED, 1),
    ],
)
async def test_a_message_can_be_cancelled_while_it_waits(
    gateway: httpx.AsyncClient,
    rows: Rows,
    bus: Bus,
    ledger: Ledger,
    state: DeliveryState | None,
    attempt: int,
) -> None:
    id_ = await insert_scheduled(rows, now() + timedelta(hours=1))
    if state is not None:
        await write(ledger, id_, state)

    responses = [await gateway.delete(f"/api/messages/{id_}") for _ in range(2)]

    shown = (await gateway.get(f"/api/messages/{id_}")).json()
    del shown["history"]
    for response in responses:
        assert response.status_code == 200
        assert response.json() == {**shown, "status": "canceled"}
    [event] = await events(bus.jetstream, Stream.EVENTS)
    assert (event.data.status, event.data.generation, event.data.attempt) == (Status.CANCELED, 0, attempt)
    entry = await ledger.look_up(MessageId(id_))
    assert entry is not None
    assert entry.value.state is DeliveryState.CANCELED


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (DeliveryState.CLAIMED, "it is being sent"),
        (DeliveryState.SENT, "it is sent"),
        (DeliveryState.FAILED, "it is failed"),
        (DeliveryState.EXPIRED, "it is expired"),
    ],
)
async def test_a_message_whose_attempt_has_started_cannot_be_cancelled(
    gateway: httpx.AsyncClient, rows: Rows, bus: Bus, ledger: Ledger, state: DeliveryState, reason: str
) -> None:
    id_ = await insert_scheduled(rows, now() + timedelta(hours=1))
    await write(ledger, id_, state)

    response = await gateway.delete(f"/api/messages/{id_}")

    assert (response.status_code, response.json()["code"]) == (409, "not_cancelable")
    assert response.json()["detail"] == f"The message can no longer be cancelled: {reason}"
    assert await events(bus.jetstream, Stream.EVENTS) == []


async def test_a_message_that_the_provider_may_have_cannot_be_cancelled(
    gateway: httpx.AsyncClient, rows: Rows, bus: Bus, ledger: Ledger
) -> None:
    id_ = await insert_scheduled(rows, now() + timedelta(hours=1))
    await write(ledger, id_, DeliveryState.RETRYING, in_doubt_at="twilio")

    response = await gateway.delete(f"/api/messages/{id_}")

    assert (response.status_code, response.json()["code"]) == (409, "outcome_unknown")
    assert await events(bus.jetstream, Stream.EVENTS) == []


async def test_a_replay_that_no_sender_has_seen_can_be_cancelled(
    gateway: httpx.AsyncClient, rows: Rows, bus: Bus, ledger: Ledger
) -> None:
    id_ = await rows.message(ALICE, BOB, direction=Direction.OUTBOUND)
    await rows.event(id_, Status.FAILED)
    await rows.event(id_, Status.ACCEPTED, generation=1, attempt=0)
    await write(ledger, id_, DeliveryState.FAILED)

    response = await gateway.delete(f"/api/messages/{id_}")

    assert response.status_code == 200
    [event] = await events(bus.jetstream, Stream.EVENTS)
    assert (event.data.generation, event.data.attempt) == (1, 1)


async def test_an_inbound_message_cannot_be_cancelled(gateway: httpx.AsyncClient, rows: Rows) -> None:
    response = await gateway.delete(f"/api/messages/{await rows.message(BOB, ALICE)}")

    assert (response.status_code, response.json()["code"]) == (409, "not_cancelable")


@pytest.mark.parametrize("status", [Status.SENT, Status.DELIVERED, Status.FAILED, Status.EXPIRED])
async def test_a_message_that_the_ledger_has_forgotten_is_judged_by_its_status(
    gateway: httpx.AsyncClient, rows: Rows, status: Status
) -> None:
    id_ = await rows.message(ALICE, BOB, direction=Direction.OUTBOUND)
    await rows.event(id_, status)

    response = await gateway.delete(f"/api/messages/{id_}")

    assert (response.status_code, response.json()["code"]) == (409, "not_cancelable")


async def test_a_message_that_is_not_stored_is_not_found(gateway: httpx.AsyncClient) -> None:
    for id_ in (uuid4(), 1):
        response = await gateway.delete(f"/api/messages/{id_}")

        assert (response.status_code, response.json()["code"]) == (404, "message_not_found")
