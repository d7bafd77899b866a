"""Applications are notified once of everything that is new, in the order in which it happened."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.outbox import Outbox
from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher
from shared.db.reader import Reader
from shared.dead_letters import Resolution
from shared.errors import BusUnavailableError, UnavailableError
from shared.events import Event
from shared.resources.events import Renderer
from shared.status import Status
from shared.suppressions import SuppressionState
from tests.events import (
    NOON,
    OURS,
    accepted,
    dead_letter,
    delivered,
    message,
    of_all_kinds,
    receipt,
    received,
    resolved,
    status_changed,
    suppression_changed,
)
from tests.notifications import notify, publish_stored, published, store

pytestmark = pytest.mark.integration

NEW = message()
LATER = message(1, send_at=NOON + timedelta(hours=2))
SENT = status_changed(NEW.id, Status.SENT)
DEAD = dead_letter(NEW)
OUT, IN = SuppressionState.OPTED_OUT, SuppressionState.OPTED_IN

CASES: dict[str, tuple[list[Event[Any]], list[str]]] = {
    "received": ([received()], ["conversation.created", "message.received"]),
    "accepted": ([accepted(NEW)], ["conversation.created", "message.accepted"]),
    "scheduled": ([accepted(LATER)], ["conversation.created", "message.scheduled"]),
    "in a known conversation": (
        [received(0), received(1)],
        ["conversation.created", *["message.received"] * 2],
    ),
    "delivered": (
        delivered(0),
        [
            "conversation.created",
            *("message.accepted", "message.sent", "message.delivered", "message.received"),
        ],
    ),
    "undelivered": (
        [accepted(NEW), SENT, receipt(NEW.id, Status.UNDELIVERED)],
        ["conversation.created", "message.accepted", "message.sent", "message.undelivered"],
    ),
    **{
        status.value: (
            [accepted(NEW), status_changed(NEW.id, status)],
            ["conversation.created", "message.accepted", f"message.{status}"],
        )
        for status in (Status.FAILED, Status.EXPIRED, Status.CANCELED)
    },
    "sent in the next generation": (
        [accepted(NEW), status_changed(NEW.id, Status.FAILED), accepted(NEW, generation=1)],
        ["conversation.created", "message.accepted", "message.failed", "message.accepted"],
    ),
    "stored in reverse order": (
        [receipt(NEW.id), SENT, accepted(NEW)],
        ["conversation.created", "message.accepted", "message.sent", "message.delivered"],
    ),
    "overtaken": (
        [accepted(NEW), SENT, status_changed(NEW.id, Status.RETRYING), receipt(NEW.id, Status.SENT)],
        ["conversation.created", "message.accepted", "message.sent"],
    ),
    "opted out and in": (
        [suppression_changed(n, state) for n, state in enumerate([OUT, OUT, IN, IN, OUT])],
        ["recipient.opted_out", "recipient.opted_in", "recipient.opted_out"],
    ),
    "an older opt-out": ([suppression_changed(n, state) for n, state in ((2, IN), (1, OUT))], []),
    "replayed": (
        [DEAD, resolved(DEAD, Resolution.REPLAYED)],
        ["dead_letter.created", "dead_letter.resolved"],
    ),
    "discarded": (
        [DEAD, resolved(DEAD, Resolution.DISCARDED, reason="a test")],
        ["dead_letter.created", "dead_letter.resolved"],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_is_new_is_published_once(
    engine: AsyncEngine, bus: Bus, publisher: Publisher, case: str
) -> None:
    events, expected = CASES[case]
    await notify(engine, publisher, events)
    notifications = await published(bus)
    assert [each.type.value for each in notifications.values()] == expected
    assert {each.our_address for each in notifications.values()} <= {OURS}
    assert len({each.id for each in notifications.values()}) == len(expected)

    # Reading the streams again, with the NATS CLI or after a reset, stores the same events.
    await store(engine, events)
    assert await publish_stored(engine, publisher) == 0


async def test_an_event_shows_the_object_as_it_was(
    engine: AsyncEngine, bus: Bus, publisher: Publisher
) -> None:
    await notify(engine, publisher, of_all_kinds())
    events = await Renderer(Reader(engine)).render(await published(bus))
    shown = [(event.type, event.model_dump(mode="json", by_alias=True)["data"]) for event in events]
    of_first = [(type_, data) for type_, data in shown if data.get("id") == str(NEW.id)]
    assert [(type_, data["status"], data["provider"]) for type_, data in of_first] == [
        ("message.accepted", "accepted", None),
        ("message.sent", "sent", "generic_sms"),
        ("message.delivered", "delivered", "generic_sms"),
    ]
    conversation = shown[0][1]
    assert (conversation["message_count"], conversation["last_message"]["status"]) == (1, "accepted")
    dead_letters = [data for type_, data in shown if type_.startswith("dead_letter.")]
    assert [(data["state"], data["resolution"] and data["resolution"]["by"]) for data in dead_letters] == [
        ("open", None),
        ("replayed", "support"),
        ("open", None),
        ("discarded", "support"),
    ]
    opted = [data for type_, data in shown if type_.startswith("recipient.")]
    assert [(data["address"], data["sender"]) for data in opted] == [
        ("+18045550001", OURS),
        ("+18045550001", OURS),
        ("+18045550001", None),
    ]


class Interrupted(Publisher):
    """A publisher that stores some notifications and fails for the others."""

    def __init__(self, publisher: Publisher, stored: int) -> None:
        self._publisher = publisher
        self._stored = stored

    async def publish_batch(self, stream: str, batch: Sequence[Outgoing]) -> None:
        await self._publisher.publish_batch(stream, batch[: self._stored])
        raise BusUnavailableError("no answer")


async def test_another_process_publishes_what_was_left(
    engine: AsyncEngine, bus: Bus, publisher: Publisher
) -> None:
    await store(engine, of_all_kinds())
    with pytest.raises(BusUnavailableError):
        await Outbox(engine, Interrupted(publisher, 5)).publish_some()
    before = await published(bus)
    assert len(before) == 5
    await publish_stored(engine, publisher)
    after = await published(bus)
    assert [*after.items()][:5] == [*before.items()]
    assert len(after) == len({each.id for each in after.values()}) > 5


async def test_processes_publish_the_statuses_of_a_message_in_order(
    engine: AsyncEngine, bus: Bus, publisher: Publisher
) -> None:
    async def process(events: Sequence[Event[Any]]) -> None:
        for event in events:
            await notify(engine, publisher, [event])

    lives: list[list[Event[Any]]] = [
        [accepted(each), status_changed(each.id, Status.SENT), receipt(each.id)]
        for each in map(message, range(20))
    ]
    await asyncio.gather(*(process([life[step] for life in lives]) for step in (2, 0, 1)))
    notifications = (await published(bus)).values()
    for life in lives:
        id_ = life[0].data.message.id
        of_message = [each.type.value for each in notifications if each.message_id == id_ and each.report]
        assert of_message == ["message.accepted", "message.sent", "message.delivered"]


async def test_the_outbox_is_empty_afterwards(engine: AsyncEngine, publisher: Publisher) -> None:
    await notify(engine, publisher, of_all_kinds())
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM notification_outbox")) == 0


async def test_an_event_without_its_object_is_left_out_unless_the_database_is_being_rebuilt(
    engine: AsyncEngine, bus: Bus, publisher: Publisher
) -> None:
    await notify(engine, publisher, [received(), suppression_changed(0, OUT)])
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM messages"))
    renderer = Renderer(Reader(engine))
    assert [each.type for each in await renderer.render(await published(bus))] == ["recipient.opted_out"]
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA former"))
    with pytest.raises(UnavailableError, match="rebuilt"):
        await renderer.render(await published(bus))


async def test_an_event_that_cannot_be_shown_does_not_hold_up_the_others(
    engine: AsyncEngine, bus: Bus, publisher: Publisher
) -> None:
    await notify(engine, publisher, [DEAD, suppression_changed(0, OUT)])
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE dead_letters SET content = '{}'"))
    events = await Renderer(Reader(engine)).render(await published(bus))
    assert [each.type for each in events] == ["recipient.opted_out"]
