"""Rows for measurements of lists: many messages, conversations, dead letters, suppressions and attempts.

They are loaded by COPY, together with the values that triggers would derive. The rows are as unfavourable as
they may be: one address takes part in all conversations of its channel, almost everything else is alike, and
the few rows that differ are the oldest ones.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import islice
from uuid import UUID

import asyncpg

from dev.bench.samples import accepted_events
from shared.channels import Channel, Direction
from shared.dead_letters import DeadLetter
from shared.ids import DeadLetterId, conversation_key

OURS = "+12016660000"
"""The address that takes part in every conversation by SMS."""

_OUR_MAILBOX = "office@example.com"
_OUR_PARTICIPANTS = {Channel.SMS: (1, OURS), Channel.EMAIL: (2, _OUR_MAILBOX)}

REPLAYABLE, DISCARDABLE = "http_503", "unknown_type"
"""The reasons of the open dead letters, of which there are `OPEN` each."""

OPEN = 100

_FIRST_NUMBER = 18042000000
_RARE = 40
"""The messages by e-mail, which have failed, the opt-outs that apply, and the failed attempts."""

_RARE_CONVERSATIONS = 20
_SCHEDULED = range(_RARE + 1, 2 * _RARE + 1)
"""The messages that are scheduled, unless they are inbound."""

_NEWEST = datetime(2026, 1, 1, tzinfo=UTC)
_PORTION = 400_000
"""Rows that are copied at once."""

_SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835
_MAX_UUID = (1 << 128) - 1
_KINDS = (
    *("accepted", "first", "receipt", "media", "letter"),
    *("pair", "opted_out", "opted_in", "event", "attempt"),
)

_BODY = "Your appointment is tomorrow at nine. Reply STOP to get no more messages."
_ERROR = '{"attempt": 1, "code": "http_400", "detail": "", "at": "2026-01-01T00:00:00Z"}'

_COLUMNS = {
    "participants": "id address channel",
    "conversations": "id key channel message_count last_message_at",
    "conversation_participants": "conversation_id participant_id last_message_at",
    "messages": "id conversation_id channel direction type from_address to_address body attachments timestamp"
    " created_at provider provider_message_id reference metadata",
    "participant_messages": "participant_id created_at message_id",
    "message_metadata": "key value created_at message_id",
    "message_events": "id message_id status generation precedence attempt provider provider_message_id error"
    " next_attempt_at occurred_at",
    "delivery_receipts": "id provider provider_message_id status precedence occurred_at",
    "message_states": "message_id event_id source status generation precedence attempt provider"
    " provider_message_id error next_attempt_at occurred_at created_at",
    "media": "id status message_id position reason",
    "dead_letters": "id direction channel reason generation content state created_at",
    "dead_letter_resolutions": "dead_letter_id resolution reason resolved_by resolved_at",
    "suppression_changes": "id key channel theirs state source occurred_at",
    "suppressions": "key change_id channel theirs state occurred_at",
    "webhook_attempts": "id endpoint_id event_id event_type sequence attempt trigger started_at duration_ms"
    " succeeded status_code response",
    "traffic": "minute channel provider kind count",
}

_CONSTRAINTS = """
    SELECT conrelid::regclass::text AS table, conname AS name, pg_get_constraintdef(oid) AS definition
    FROM pg_constraint AS key
    WHERE contype IN ('p', 'u') AND conrelid::regclass::text = ANY ($1)
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND conindid = key.conindid)
"""
_INDEXES = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
    WHERE indrelid::regclass::text = ANY ($1)
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""

Row = tuple[str, tuple[object, ...]]
"""The name of a table, and the values of its `_COLUMNS`."""


async def load(connection: asyncpg.Connection, messages: int, endpoint: UUID) -> None:
    """Replace all rows.

    There are a tenth as many conversations, dead letters, suppressions, and attempts to deliver events to
    `endpoint`.
    """
    conversations, others = _conversations_of(messages), max(messages // 10, 3 * OPEN)
    async with connection.transaction(), _without_indexes(connection):
        await connection.execute(f"TRUNCATE {', '.join(_COLUMNS)}")
        await connection.execute("SET LOCAL session_replication_role = replica")  # without triggers
        for rows in (
            _messages(messages, conversations),
            _conversations(messages, conversations),
            _dead_letters(others),
            _suppressions(others),
            _attempts(others, endpoint),
            _traffic(),
        ):
            await _copy(connection, rows)
        for table in ("participants", "conversations"):
            await connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"  # noqa: S608
            )
    await connection.execute("VACUUM (ANALYZE)")


async def _copy(connection: asyncpg.Connection, rows: Iterator[Row]) -> None:
    """Copy rows to their tables, and create the next ones in the meantime."""
    portion = await asyncio.to_thread(_encode, rows)
    while portion:
        upcoming = asyncio.create_task(asyncio.to_thread(_encode, rows))
        for table, lines in portion.items():
            columns = _COLUMNS[table].split()
            await connection.copy_to_table(
                table, source=BytesIO(lines), columns=columns, null="None", freeze=True
            )
        portion = await upcoming


def _encode(rows: Iterator[Row]) -> Mapping[str, bytes]:
    """Return the next rows as text for COPY, by their tables."""
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for table, values in islice(rows, _PORTION):
        lines[table].append("\t".join(map(str, values)))
    return {table: "\n".join(texts).encode() for table, texts in lines.items()}


@asynccontextmanager
async def _without_indexes(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Drop the indexes for the block, since it is much faster to build them afterwards.

    Foreign keys depend on some primary keys, which are kept.
    """
    constraints = await connection.fetch(_CONSTRAINTS, list(_COLUMNS))
    indexes = await connection.fetch(_INDEXES, list(_COLUMNS))
    for each in constraints:
        await connection.execute(f"ALTER TABLE {each['table']} DROP CONSTRAINT {each['name']}")
    for each in indexes:
        await connection.execute(f"DROP INDEX {each['name']}")
    yield
    await connection.execute("SET LOCAL maintenance_work_mem = '1GB'")
    for each in constraints:
        await connection.execute(
            f"ALTER TABLE {each['table']} ADD CONSTRAINT {each['name']} {each['definition']}"
        )
    for each in indexes:
        await connection.execute(each["definition"])


def _messages(count: int, conversations: int) -> Iterator[Row]:
    """Return the messages with everything about them. Every fourth one is inbound."""
    for number in range(1, count + 1):
        at = _time(count - number)
        id_ = f"{int(_NEWEST.timestamp() - count + number) * 1_000:012x}70008000{number:012x}"
        conversation = _conversation_of(number, conversations)
        channel = _channel_of(conversation)
        (our_id, ours), theirs = _OUR_PARTICIPANTS[channel], _their_address(conversation)
        is_inbound = number % 4 == 0
        campaign = "old" if number <= _RARE else "new"
        yield (
            "messages",
            (
                *(id_, conversation, channel, "inbound" if is_inbound else "outbound", channel),
                *((theirs, ours) if is_inbound else (ours, theirs)),
                *(_BODY, "{}", at, at),
                *((f"generic_{channel}", f"in-{number}") if is_inbound else (None, None)),
                *(f"order-{number}", f'{{"order": "{number}", "campaign": "{campaign}"}}'),
            ),
        )
        yield "participant_messages", (our_id, at, id_)
        yield "participant_messages", (_their_id(conversation), at, id_)
        yield "message_metadata", ("order", number, at, id_)
        yield "message_metadata", ("campaign", campaign, at, id_)
        if is_inbound:
            if number % 100 == 0:
                yield "media", (_uuid(number, "media"), "failed", id_, 0, "not_found")
        else:
            yield from _reports(number, id_, at, f"generic_{channel}")


def _reports(number: int, id_: str, at: str, provider: str) -> Iterator[Row]:
    accepted, first, receipt = (_uuid(number, kind) for kind in ("accepted", "first", "receipt"))
    yield "message_events", (accepted, id_, "accepted", 0, 0, 0, None, None, None, None, at)
    if number in _SCHEDULED:
        waiting = ("scheduled", 0, 1, 0, None, None, None, _later(number), at)
        yield "message_events", (first, id_, *waiting)
        yield "message_states", (id_, first, "event", *waiting, at)
    elif number <= _RARE:
        failed = ("failed", 0, 4, 1, provider, None, _ERROR, None, at)
        yield "message_events", (first, id_, *failed)
        yield "message_states", (id_, first, "event", *failed, at)
    else:
        yield "message_events", (first, id_, "sent", 0, 3, 1, provider, f"out-{number}", None, None, at)
        yield "delivery_receipts", (receipt, provider, f"out-{number}", "delivered", 4, at)
        delivered = ("delivered", 0, 4, 1, provider, f"out-{number}", None, None, at)
        yield "message_states", (id_, receipt, "receipt", *delivered, at)


def _conversations(messages: int, count: int) -> Iterator[Row]:
    for channel, (id_, address) in _OUR_PARTICIPANTS.items():
        yield "participants", (id_, address, channel)
    numbers, newest = [0] * (count + 1), [0] * (count + 1)
    for number in range(1, messages + 1):
        conversation = _conversation_of(number, count)
        numbers[conversation] += 1
        newest[conversation] = number
    for conversation in range(1, count + 1):
        channel, theirs = _channel_of(conversation), _their_address(conversation)
        our_id, ours = _OUR_PARTICIPANTS[channel]
        at = _time(messages - newest[conversation])
        yield "participants", (_their_id(conversation), theirs, channel)
        key = conversation_key(channel, (ours, theirs))
        yield "conversations", (conversation, key, channel, numbers[conversation], at)
        yield "conversation_participants", (conversation, our_id, at)
        yield "conversation_participants", (conversation, _their_id(conversation), at)


def _dead_letters(count: int) -> Iterator[Row]:
    for number, event in enumerate(accepted_events(OPEN), start=1):
        letter_id = _letter_id(number, count)
        letter = DeadLetter(
            id=DeadLetterId(UUID(letter_id)),
            direction=Direction.OUTBOUND,
            channel=Channel.SMS,
            reason=REPLAYABLE,
            detail="",
            message_id=event.data.message.id,
            request=event.data,
        )
        content = letter.model_dump_json(by_alias=True)
        yield (
            "dead_letters",
            (letter_id, "outbound", "sms", REPLAYABLE, 0, content, "open", _time(count - number)),
        )
    for number in range(OPEN + 1, count + 1):
        id_, at = _letter_id(number, count), _time(count - number)
        is_open = number <= 2 * OPEN
        channel, reason = ("email", DISCARDABLE) if is_open else ("sms", "not_json")
        content = (
            f'{{"id": "{id_}", "direction": "inbound", "channel": "{channel}", "reason": "{reason}",'
            ' "detail": "", "payload": "{}"}'
        )
        state = "open" if is_open else "discarded"
        yield "dead_letters", (id_, "inbound", channel, reason, 0, content, state, at)
        if not is_open:
            yield "dead_letter_resolutions", (id_, "discarded", "a test", "support", at)


def _letter_id(number: int, count: int) -> str:
    """Return another id after each load. NATS ignores the events of one that was resolved before."""
    return _uuid(count << 32 | number, "letter")


def _suppressions(count: int) -> Iterator[Row]:
    """Return an opt-out of each number, most of which are followed by an opt-in."""
    for number in range(1, count + 1):
        key, theirs = _uuid(number, "pair"), f"+{_FIRST_NUMBER + number}"
        channel = "email" if number <= _RARE // 2 else "sms"
        states = ["opted_out"] if number <= _RARE else ["opted_out", "opted_in"]
        for age, state in enumerate(states):
            id_, at = _uuid(number, state), _time(count - number + 1 - age)
            yield "suppression_changes", (id_, key, channel, theirs, state, "api", at)
        yield "suppressions", (key, id_, channel, theirs, state, at)


def _attempts(count: int, endpoint: UUID) -> Iterator[Row]:
    for number in range(1, count + 1):
        event, at = _uuid(number, "event"), _time(count - number)
        outcome = (False, 500, "") if number <= _RARE else (True, 200, "")
        place = (event, "message.sent", number, 1, "event", at, 20)
        yield "webhook_attempts", (_uuid(number, "attempt"), endpoint, *place, *outcome)


def _traffic() -> Iterator[Row]:
    """Return the numbers of each minute of a day, which is as long as they are kept."""
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    for age in range(24 * 60):
        for kind in ("received", "accepted", "sent", "delivered"):
            yield "traffic", (minute - timedelta(minutes=age), "sms", "generic_sms", kind, 1_000)


def recipients(count: int, messages: int) -> Iterator[str]:
    """Return addresses of conversations by SMS from among all of them, given the number of messages."""
    conversations = _conversations_of(messages)
    step = (conversations - _RARE_CONVERSATIONS - 1) / count
    return (_their_address(conversations - int(number * step)) for number in range(count))


async def examples(connection: asyncpg.Connection) -> dict[str, str]:
    """Return the ids of a message, a dead letter and an event that was delivered."""
    return {
        "message": await connection.fetchval("SELECT id FROM messages ORDER BY id DESC LIMIT 1"),
        "dead_letter": await connection.fetchval("SELECT id FROM dead_letters WHERE state = 'open' LIMIT 1"),
        "event": await connection.fetchval("SELECT event_id FROM webhook_attempts LIMIT 1"),
    }


def _conversations_of(messages: int) -> int:
    return max(messages // 10, 100)


def _conversation_of(number: int, conversations: int) -> int:
    """Return the conversation of a message. The oldest messages are in the conversations by e-mail."""
    if number <= _RARE:
        return 1 + number % _RARE_CONVERSATIONS
    return _RARE_CONVERSATIONS + 1 + number % (conversations - _RARE_CONVERSATIONS)


def _channel_of(conversation: int) -> Channel:
    return Channel.EMAIL if conversation <= _RARE_CONVERSATIONS else Channel.SMS


def _their_address(conversation: int) -> str:
    if conversation <= _RARE_CONVERSATIONS:
        return f"a{conversation}@example.com"
    return f"+{_FIRST_NUMBER + conversation}"


def _their_id(conversation: int) -> int:
    return len(_OUR_PARTICIPANTS) + conversation


def _time(age: int) -> str:
    return (_NEWEST - timedelta(seconds=age)).isoformat()


def _later(number: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=number)).isoformat()


def _uuid(number: int, kind: str) -> str:
    """Return an id that is unique for the number and the kind; their order is as random as that of UUIDv5."""
    return f"{(number << 8 | _KINDS.index(kind)) * _SPREAD & _MAX_UUID:032x}"
