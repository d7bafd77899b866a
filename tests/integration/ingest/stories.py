"""Events as the gateway and the sender would publish them, and what becomes of them in the database."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid5

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.bus.client import connect
from shared.bus.publisher import Outgoing, publishing
from shared.bus.topology import (
    Stream,
    suppression_subject,
    dead_letter_resolved_subject,
    dead_letter_subject,
    event_subject,
    inbound_message_subject,
    inbound_receipt_subject,
    outbound_subject,
)
from shared.channels import Channel, Direction
from shared.events import (
    AttemptError,
    SuppressionChange,
    SuppressionChanged,
    SuppressionSource,
    SuppressionState,
    DeadLetter,
    DeadLettered,
    DeadLetterResolution,
    DeadLetterResolved,
    DeliveryReceipt,
    DeliveryRequest,
    Event,
    InboundMessage,
    Message,
    MessageAccepted,
    MessageReceived,
    Origin,
    ReceiptReceived,
    Resolution,
    StatusChanged,
    StatusReport,
)
from shared.ids import (
    EventId,
    MessageId,
    conversation_key,
    dead_letter_id,
    event_id,
    idempotent_message_id,
    inbound_message_id,
)
from shared.lifecycle import Status
from tests import messages
from tests.waiting import eventually

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS = "+12016660001"
THEIRS = "+18045550001"
PROVIDER = "mock-sms"


def message(number: int = 0, *, sender: str = OURS, recipient: str = THEIRS, body: str = "hello") -> Message:
    """The outbound message of this number, the same at every call."""
    written_at = NOON + timedelta(seconds=number)
    return messages.message(
        id=idempotent_message_id("stories", str(number)),
        from_=sender,
        to=recipient,
        body=body,
        attachments=["https://example.org/a.png", 'odd, "quoted" {name}'],
        timestamp=written_at,
        created_at=written_at + timedelta(milliseconds=5),
    )


def accepted(message: Message, *, generation: int = 0) -> MessageAccepted:
    expires_at = message.created_at + timedelta(hours=4)
    request = DeliveryRequest(message=message, generation=generation, expires_at=expires_at)
    return MessageAccepted.of(request, time=message.created_at + timedelta(minutes=generation))


def received(number: int = 0, *, sender: str = THEIRS, recipient: str = OURS) -> MessageReceived:
    """The inbound message of this number, the same at every call."""
    provider_message_id = f"in-{number}"
    inbound = message(number, sender=sender, recipient=recipient).model_copy(
        update={
            "id": inbound_message_id(PROVIDER, provider_message_id),
            "direction": Direction.INBOUND,
            "provider": PROVIDER,
            "provider_message_id": provider_message_id,
        }
    )
    return MessageReceived.of(InboundMessage(message=inbound, raw={"body": inbound.body}))


def status(message_id: MessageId, status_: Status, *, generation: int = 0, attempt: int = 1) -> StatusChanged:
    failed = status_ in {Status.RETRYING, Status.FAILED}
    error = AttemptError(attempt=attempt, code="provider_error", detail="503", at=NOON) if failed else None
    report = StatusReport(
        message_id=message_id,
        channel=Channel.SMS,
        status=status_,
        generation=generation,
        attempt=attempt,
        provider=PROVIDER,
        provider_message_id=provider_message_id(message_id) if status_ is Status.SENT else None,
        error=error,
        next_attempt_at=NOON if status_ is Status.RETRYING else None,
    )
    return StatusChanged.of(report, time=NOON + timedelta(minutes=attempt))


def receipt(message_id: MessageId, status_: Status = Status.DELIVERED) -> ReceiptReceived:
    report = DeliveryReceipt(
        channel=Channel.SMS,
        provider=PROVIDER,
        provider_message_id=provider_message_id(message_id),
        status=status_,
        error_code="30003" if status_ is Status.UNDELIVERED else None,
        occurred_at=NOON + timedelta(hours=1),
        raw={},
    )
    return ReceiptReceived.of(report, id_=event_id(message_id, "receipt", status_), time=NOON)


def dead_letter(message: Message) -> DeadLettered:
    origin = Origin(stream="OUTBOUND", sequence=1, subject="outbound.sms.1.x", consumer="sender-sms-00")
    letter = DeadLetter(
        id=dead_letter_id(message.id, 0),
        direction=Direction.OUTBOUND,
        channel=Channel.SMS,
        reason="attempts_exhausted",
        detail="it was tried 8 times",
        message_id=message.id,
        attempts=8,
        request=accepted(message).data,
        origin=origin,
    )
    return DeadLettered.of(letter, source="/sender", time=NOON)


def resolved(
    dead_letter: DeadLettered, resolution: Resolution, reason: str | None = None, by: str = "support"
) -> DeadLetterResolved:
    data = DeadLetterResolution(
        dead_letter_id=dead_letter.data.id, resolution=resolution, reason=reason, by=by
    )
    return DeadLetterResolved.of(data, time=NOON + timedelta(hours=2))


def consent_changed(minute: int, state: SuppressionState, *, ours: str | None = OURS) -> SuppressionChanged:
    """The change of this minute, the same at every call."""
    return SuppressionChanged.of(
        SuppressionChange(
            channel=Channel.SMS,
            ours=ours,
            theirs=THEIRS,
            state=state,
            source=SuppressionSource.KEYWORD,
            detail="stop",
            occurred_at=NOON + timedelta(minutes=minute),
        )
    )


def provider_message_id(message_id: MessageId) -> str:
    return f"out-{message_id}"


def life_of(number: int) -> list[Event]:
    """Everything that is told of a message which is retried, sent and delivered, and of its answer."""
    outbound = message(number)
    return [
        accepted(outbound),
        status(outbound.id, Status.RETRYING),
        status(outbound.id, Status.SENT, attempt=2),
        receipt(outbound.id),
        received(number),
    ]


def lives() -> list[Event]:
    """A delivered message with its answer, a failed one whose second generation is sent, and one elsewhere."""
    failed, hopeless = message(1), message(3)
    return [
        *life_of(0),
        accepted(failed),
        status(failed.id, Status.FAILED),
        dead_letter(failed),
        accepted(failed, generation=1),
        status(failed.id, Status.SENT, generation=1),
        resolved(dead_letter(failed), Resolution.REPLAYED),
        receipt(failed.id, Status.UNDELIVERED),
        dead_letter(hopeless),
        resolved(dead_letter(hopeless), Resolution.DISCARDED, "a test"),
        accepted(message(2, recipient="+18045550002")),
        consent_changed(0, SuppressionState.OPTED_OUT),
        consent_changed(1, SuppressionState.OPTED_IN),
        consent_changed(2, SuppressionState.OPTED_OUT, ours=None),
    ]


def place_of(event: Event) -> tuple[Stream, str]:  # noqa: PLR0911 - a table
    """The stream and the subject that the event is published to."""
    match event:
        case MessageAccepted():
            sent = event.data.message
            return Stream.OUTBOUND, outbound_subject(sent.channel, sent.conversation_key)
        case MessageReceived():
            got = event.data.message
            return Stream.INBOUND, inbound_message_subject(got.channel, got.conversation_key)
        case ReceiptReceived():
            return Stream.INBOUND, inbound_receipt_subject(event.data.channel, event.data.provider)
        case StatusChanged():
            return Stream.EVENTS, event_subject(event.data.channel, event.data.status)
        case DeadLettered():
            return Stream.DEADLETTER, dead_letter_subject(event.data.direction, event.data.channel)
        case DeadLetterResolved():
            return Stream.DEADLETTER, dead_letter_resolved_subject(Channel.SMS)
        case SuppressionChanged():
            return Stream.SUPPRESSIONS, suppression_subject(event.data.channel, event.data.key)
    raise TypeError(f"ingest does not read {event.type}")


async def publish(nats_url: str, events: Iterable[Event]) -> None:
    places = [(*place_of(event), event.encode()) for event in events]
    await publish_raw(nats_url, places)


async def publish_raw(nats_url: str, places: Iterable[tuple[Stream, str, bytes]]) -> None:
    """Publish payloads, readable or not, each to a stream and a subject."""
    async with connect(nats_url, name="stories") as bus, publishing(bus) as publisher:
        await bus.until_connected()
        await asyncio.gather(
            *(
                publisher.publish(stream, Outgoing(subject, _id_of(payload), payload))
                for stream, subject, payload in places
            )
        )


def _id_of(payload: bytes) -> EventId:
    return EventId(uuid5(conversation_key([]), payload.hex()))


_TABLES = (
    "participants",
    "conversations",
    "conversation_participants",
    "messages",
    "message_events",
    "delivery_receipts",
    "dead_letters",
    "dead_letter_resolutions",
    "suppression_changes",
)

_MEANING = {
    "participants": "SELECT address, channel FROM participants",
    "conversations": """
        SELECT key, channel, message_count, last_message_at, array(
            SELECT address
            FROM participants JOIN conversation_participants ON participant_id = participants.id
            WHERE conversation_id = conversations.id ORDER BY address
        ) AS addresses FROM conversations""",
    "messages": """
        SELECT to_jsonb(messages) - 'conversation_id' - 'written_by' AS message, key
        FROM messages JOIN conversations ON conversations.id = conversation_id""",
    "message_events": "SELECT * FROM message_events",
    "delivery_receipts": "SELECT * FROM delivery_receipts",
    "dead_letters": "SELECT * FROM dead_letters",
    "dead_letter_resolutions": "SELECT * FROM dead_letter_resolutions",
    "suppression_changes": "SELECT * FROM suppression_changes",
}

Dump = dict[str, list[str]]


async def every_row(engine: AsyncEngine) -> Dump:
    """All that is stored, to the last column and down to which transaction wrote each row."""
    return await _dump(engine, {table: f"SELECT xmin, * FROM {table}" for table in _TABLES})  # noqa: S608


async def meaning(engine: AsyncEngine) -> Dump:
    """What is stored, without what depends on when and in which order it was."""
    return await _dump(engine, _MEANING)


async def _dump(engine: AsyncEngine, queries: dict[str, str]) -> Dump:
    async with engine.connect() as connection:
        return {
            name: list(await connection.scalars(text(f"SELECT r::text FROM ({query}) AS r ORDER BY 1")))  # noqa: S608
            for name, query in queries.items()
        }


async def count(engine: AsyncEngine, table: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)  # noqa: S608


async def empty(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {', '.join(_TABLES)}"))


async def until_count(engine: AsyncEngine, table: str, expected: int) -> None:
    """Return when the table has as many rows, or more."""

    async def is_reached() -> bool:
        return await count(engine, table) >= expected

    await eventually(is_reached)
