"""Rows for measurements of lists: many messages, conversations, dead letters and suppressions.

The server generates them in batches, together with the values that its triggers would derive. The rows are as
unfavourable as they may be: one address takes part in all conversations of its channel, almost everything
else is alike, and the few rows that differ are the oldest ones.
"""

from collections.abc import Sequence

import asyncpg

OURS = "+12016660000"
"""The address that takes part in every conversation by SMS."""

_PORTION = 50_000

_OUR_PARTICIPANTS = """
    INSERT INTO participants (address, channel) VALUES ($1, 'sms'), ('office@example.com', 'email')
"""

_CONVERSATIONS = """
    WITH created AS (
        INSERT INTO conversations (key, channel)
        SELECT md5('conversation ' || number)::uuid, CASE WHEN number <= 20 THEN 'email' ELSE 'sms' END
        FROM generate_series($1::bigint, $2::bigint) AS number ORDER BY number
        RETURNING id, channel, key
    ), numbered AS (
        SELECT id, channel, number
        FROM created JOIN generate_series($1::bigint, $2::bigint) AS number
            ON key = md5('conversation ' || number)::uuid
    ), theirs AS (
        INSERT INTO participants (address, channel)
        SELECT CASE channel WHEN 'email' THEN 'a' || number || '@example.com'
            ELSE '+1804' || lpad(number::text, 7, '0') END, channel
        FROM numbered ORDER BY number
        RETURNING id, address, channel
    )
    INSERT INTO conversation_participants (conversation_id, participant_id)
    SELECT numbered.id, theirs.id
    FROM numbered JOIN theirs ON theirs.address = CASE numbered.channel
        WHEN 'email' THEN 'a' || number || '@example.com' ELSE '+1804' || lpad(number::text, 7, '0') END
    UNION ALL
    SELECT numbered.id, ours.id
    FROM numbered JOIN participants AS ours ON ours.channel = numbered.channel AND ours.address
        = CASE numbered.channel WHEN 'email' THEN 'office@example.com' ELSE '+12016660000' END
"""

# Version 7 of UUIDs, as the gateway creates them, so that they are stored in their order.
_ID = """
    (lpad(to_hex((extract(epoch FROM created_at) * 1000)::bigint), 12, '0')
        || '7' || substr(md5('message ' || number), 1, 3) || '8' || substr(md5('message ' || number), 4, 15)
    )::uuid
"""

# Message n is in conversation n modulo their number; the first round has all e-mails. Every fourth message is
# inbound.
_MESSAGES = f"""
    INSERT INTO messages (
        id, conversation_id, channel, direction, type, from_address, to_address, body, attachments,
        "timestamp", created_at, provider, provider_message_id, reference, metadata
    )
    SELECT {_ID}, conversation.id, conversation.channel,
        CASE WHEN number % 4 = 0 THEN 'inbound' ELSE 'outbound' END, conversation.channel,
        CASE WHEN number % 4 = 0 THEN '+1804' ELSE '+12016660000' END,
        CASE WHEN number % 4 = 0 THEN '+12016660000' ELSE '+1804' END,
        'Your appointment is tomorrow at nine. Reply STOP to get no more messages.', '{{}}',
        created_at, created_at,
        CASE WHEN number % 4 = 0 THEN 'generic_sms' END, CASE WHEN number % 4 = 0 THEN 'in-' || number END,
        'order-' || number,
        jsonb_build_object(
            'order', number::text, 'campaign', CASE WHEN number <= 40 THEN 'old' ELSE 'new' END
        )
    FROM (
        SELECT number, timestamptz '2026-01-01Z' - ($3::bigint - number) * interval '1 second' AS created_at,
            md5('conversation ' || CASE
                WHEN number <= 40 THEN 1 + number % 20 ELSE 21 + number % ($4::bigint - 20) END)::uuid AS key
        FROM generate_series($1::bigint, $2::bigint) AS number
    ) AS given JOIN conversations AS conversation USING (key)
"""  # noqa: S608 - constants

_EVENTS = """
    INSERT INTO message_events (
        id, message_id, status, generation, precedence, attempt, provider, provider_message_id, error,
        occurred_at
    )
    SELECT md5(status || message.id)::uuid, message.id, status, 0, precedence, attempt,
        CASE WHEN status <> 'accepted' THEN 'generic_sms' END,
        CASE WHEN status = 'sent' THEN message.id::text END,
        CASE WHEN status = 'failed' THEN
            '{"attempt": 1, "code": "http_400", "detail": "", "at": "2026-01-01T00:00:00Z"}'::jsonb END,
        message.created_at
    FROM (
        SELECT id, created_at, substr(reference, 7)::bigint AS number FROM messages
        WHERE direction = 'outbound' AND created_at
            BETWEEN timestamptz '2026-01-01Z' - ($3::bigint - $1::bigint) * interval '1 second'
                AND timestamptz '2026-01-01Z' - ($3::bigint - $2::bigint) * interval '1 second'
    ) AS message, LATERAL (
        VALUES ('accepted', 0, 0),
            (
                CASE WHEN number <= 40 THEN 'failed' ELSE 'sent' END,
                CASE WHEN number <= 40 THEN 4 ELSE 3 END, 1
            )
    ) AS report (status, precedence, attempt)
"""

_STATES = """
    INSERT INTO message_states (
        message_id, event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
        error, occurred_at, created_at
    )
    SELECT id, md5(status || id)::uuid, source, status, 0, 4, 1, 'generic_sms', id::text,
        CASE WHEN status = 'failed' THEN
            '{"attempt": 1, "code": "http_400", "detail": "", "at": "2026-01-01T00:00:00Z"}'::jsonb END,
        created_at, created_at
    FROM (
        SELECT id, created_at,
            CASE WHEN substr(reference, 7)::bigint <= 40 THEN 'failed' ELSE 'delivered' END AS status,
            CASE WHEN substr(reference, 7)::bigint <= 40 THEN 'event' ELSE 'receipt' END AS source
        FROM messages
        WHERE direction = 'outbound' AND created_at
            BETWEEN timestamptz '2026-01-01Z' - ($3::bigint - $1::bigint) * interval '1 second'
                AND timestamptz '2026-01-01Z' - ($3::bigint - $2::bigint) * interval '1 second'
    ) AS message
"""

_DERIVED = (
    """
    UPDATE conversations
    SET message_count = counted.messages, last_message_at = counted.latest
    FROM (
        SELECT conversation_id, count(*) AS messages, max(created_at) AS latest
        FROM messages GROUP BY conversation_id
    ) AS counted
    WHERE id = conversation_id
    """,
    """
    UPDATE conversation_participants AS link SET last_message_at = conversations.last_message_at
    FROM conversations WHERE id = conversation_id
    """,
    """
    INSERT INTO participant_messages (participant_id, created_at, message_id)
    SELECT participant_id, created_at, id FROM messages JOIN conversation_participants USING (conversation_id)
    """,
    """
    INSERT INTO message_metadata (key, value, created_at, message_id)
    SELECT key, value, created_at, id FROM messages, jsonb_each_text(metadata)
    """,
    """
    INSERT INTO suppressions (key, change_id, channel, theirs, state, occurred_at)
    SELECT DISTINCT ON (key) key, id, channel, theirs, state, occurred_at
    FROM suppression_changes ORDER BY key, occurred_at DESC
    """,
)
"""The updates that the triggers would make, except those for the reports on messages."""

_TABLES = (
    *("messages", "message_events", "delivery_receipts", "message_states"),
    *("dead_letters", "dead_letter_resolutions", "suppression_changes"),
)

_EMPTIED = (
    *_TABLES,
    *("participants", "conversations", "conversation_participants"),
    *("participant_messages", "message_metadata", "suppressions"),
)

_RECEIPTS = """
    INSERT INTO delivery_receipts (id, provider, provider_message_id, status, precedence, occurred_at)
    SELECT md5('receipt ' || id)::uuid, 'generic_sms', id::text, 'delivered', 4, created_at
    FROM messages
    WHERE direction = 'outbound' AND created_at
        BETWEEN timestamptz '2026-01-01Z' - ($3::bigint - $1::bigint) * interval '1 second'
            AND timestamptz '2026-01-01Z' - ($3::bigint - $2::bigint) * interval '1 second'
        AND substr(reference, 7)::bigint > 40
"""

_DEAD_LETTERS = """
    INSERT INTO dead_letters (id, direction, channel, reason, generation, content, state, created_at)
    SELECT md5('letter ' || number)::uuid, 'inbound', CASE WHEN number <= 20 THEN 'email' ELSE 'sms' END,
        CASE WHEN number <= 20 THEN 'unknown_type' ELSE 'not_json' END, 0,
        jsonb_build_object(
            'id', md5('letter ' || number)::uuid, 'direction', 'inbound', 'channel', 'sms',
            'reason', 'not_json', 'detail', '', 'payload', '{}'
        ),
        CASE WHEN number <= 40 THEN 'open' ELSE 'discarded' END,
        timestamptz '2026-01-01Z' - ($3::bigint - number) * interval '1 second'
    FROM generate_series($1::bigint, $2::bigint) AS number
"""

_RESOLUTIONS = """
    INSERT INTO dead_letter_resolutions (dead_letter_id, resolution, reason, resolved_by, resolved_at)
    SELECT md5('letter ' || number)::uuid, 'discarded', 'a test', 'support',
        timestamptz '2026-01-01Z' - ($3::bigint - number) * interval '1 second'
    FROM generate_series($1::bigint, $2::bigint) AS number WHERE number > 40
"""

_SUPPRESSIONS = """
    INSERT INTO suppression_changes (id, key, channel, ours, theirs, state, source, occurred_at)
    SELECT md5(state || number)::uuid, md5('pair ' || number)::uuid,
        CASE WHEN number <= 20 THEN 'email' ELSE 'sms' END, NULL, '+1804' || lpad(number::text, 7, '0'),
        state, 'api', timestamptz '2026-01-01Z' - ($3::bigint - number + delay) * interval '1 second'
    FROM generate_series($1::bigint, $2::bigint) AS number,
        (VALUES ('opted_out', 1), ('opted_in', 0)) AS change (state, delay)
    WHERE state = 'opted_out' OR number > 40
"""


async def empty(connection: asyncpg.Connection) -> None:
    """Delete all rows, and restart the ids of conversations."""
    await connection.execute(f"TRUNCATE {', '.join(_EMPTIED)} RESTART IDENTITY CASCADE")


async def load(connection: asyncpg.Connection, messages: int) -> None:
    """Insert messages, a tenth as many conversations, and a fiftieth as many of each other kind of row."""
    conversations, others = max(messages // 10, 100), max(messages // 50, 100)
    await _set_triggers(connection, "DISABLE")
    await connection.execute(_OUR_PARTICIPANTS, OURS)
    await _insert(connection, (_CONVERSATIONS,), conversations)
    await _insert(connection, (_MESSAGES,), messages, conversations)
    await _insert(connection, (_EVENTS, _RECEIPTS, _STATES), messages)
    await _insert(connection, (_DEAD_LETTERS, _RESOLUTIONS, _SUPPRESSIONS), others)
    for statement in _DERIVED:
        await connection.execute(statement)
    await _set_triggers(connection, "ENABLE")
    await connection.execute("VACUUM (ANALYZE)")


async def _set_triggers(connection: asyncpg.Connection, action: str) -> None:
    for table in _TABLES:
        await connection.execute(f"ALTER TABLE {table} {action} TRIGGER USER")


async def _insert(
    connection: asyncpg.Connection, statements: Sequence[str], count: int, *arguments: int
) -> None:
    for first in range(1, count + 1, _PORTION):
        last = min(first + _PORTION - 1, count)
        for statement in statements:
            total = (count,) if "$3" in statement else ()
            await connection.execute(statement, first, last, *total, *arguments)
