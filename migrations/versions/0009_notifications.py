"""Store the current state of messages, and notify applications of what happens.

Triggers do both, so that nothing is missed while processes of the previous release still store events.

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-26 07:00:00+00:00
"""

# ruff: noqa: S608 - the statements contain our own columns

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

# Each connection keeps the plans of a function. Those made while the tables were empty would otherwise
# read whole tables until PostgreSQL analyses them.
_BY_INDEX = "SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off"

_COLUMNS = """
    message_id, event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
    error, next_attempt_at, occurred_at
"""

_DECIDING_FIRST = "message_id, generation DESC, precedence DESC, attempt DESC, occurred_at DESC, event_id"


# The view of migration 0005, in which each way to find the message of a receipt has a branch of its own: the
# planner may otherwise read all receipts of a provider.
_RECEIPT_OF_SENT = """
    SELECT
        sent.message_id,
        receipt.id,
        'receipt',
        receipt.status,
        sent.generation,
        receipt.precedence,
        sent.attempt,
        receipt.provider,
        receipt.provider_message_id,
        CASE WHEN receipt.error_code IS NOT NULL THEN jsonb_strip_nulls(
            jsonb_build_object('code', receipt.error_code, 'detail', receipt.error_detail)
        ) END,
        NULL,
        receipt.occurred_at
    FROM message_events AS sent
    JOIN delivery_receipts AS receipt ON receipt.provider = sent.provider
"""

_SAME_ID = """(
    receipt.provider_message_id = sent.provider_message_id
    AND receipt.occurred_at > sent.occurred_at - interval '1 day'
)"""

_HISTORY = """
    SELECT
        message_id,
        id AS event_id,
        'event' AS source,
        status,
        generation,
        precedence,
        attempt,
        provider,
        provider_message_id,
        error,
        next_attempt_at,
        occurred_at
    FROM message_events
    UNION ALL
    {receipts}
    UNION ALL
    SELECT
        receipt.message_id,
        receipt.id,
        'receipt',
        receipt.status,
        doubtful.generation,
        receipt.precedence,
        doubtful.attempt,
        receipt.provider,
        receipt.provider_message_id,
        CASE WHEN receipt.error_code IS NOT NULL THEN jsonb_strip_nulls(
            jsonb_build_object('code', receipt.error_code, 'detail', receipt.error_detail)
        ) END,
        NULL,
        receipt.occurred_at
    FROM delivery_receipts AS receipt
    CROSS JOIN LATERAL (
        SELECT generation, attempt FROM message_events
        WHERE message_id = receipt.message_id AND status IN ('failed', 'expired') AND precedence = 2
        ORDER BY generation DESC, attempt DESC
        LIMIT 1
    ) AS doubtful
    WHERE receipt.message_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM message_events AS sent
        WHERE sent.message_id = receipt.message_id AND sent.status = 'sent'
            AND sent.provider = receipt.provider
    )
"""


_SPLIT = f"""
    {_RECEIPT_OF_SENT} WHERE sent.status = 'sent' AND {_SAME_ID}
    UNION ALL
    {_RECEIPT_OF_SENT} WHERE sent.status = 'sent' AND receipt.message_id = sent.message_id
        AND {_SAME_ID} IS NOT TRUE
"""

_JOINT = f"""
    {_RECEIPT_OF_SENT} WHERE sent.status = 'sent' AND ({_SAME_ID} OR receipt.message_id = sent.message_id)
"""


def upgrade() -> None:
    _create_tables()
    op.execute(_FORMER_IDS)
    op.execute(_UPDATE_MESSAGE_STATES)
    op.execute(_TAKE_NOTIFICATIONS)
    op.execute("REVOKE EXECUTE ON FUNCTION take_notifications FROM PUBLIC")
    for table, function in _ON_INSERT.items():
        op.execute(f"""
            CREATE FUNCTION notify_of_{table}() RETURNS trigger LANGUAGE plpgsql
            {_BY_INDEX} AS $$
            DECLARE
                known uuid[] = '{{}}';
            BEGIN
                IF NOT EXISTS (SELECT FROM inserted) THEN
                    RETURN NULL;
                END IF;
                {function}
                RETURN NULL;
            END
            $$
        """)
        # Triggers are executed in the order of their names: that of `messages` after the one that counts.
        op.execute(f"""
            CREATE TRIGGER {table}_notified
            AFTER INSERT ON {table} REFERENCING NEW TABLE AS inserted
            FOR EACH STATEMENT EXECUTE FUNCTION notify_of_{table}()
        """)
    # Since the triggers exist, no event can be stored in the meantime. Ingest waits, and the messages wait in
    # their streams.
    op.execute(f"""
        INSERT INTO message_states ({_COLUMNS})
        SELECT DISTINCT ON (message_id) {_COLUMNS} FROM ({_HISTORY.format(receipts=_SPLIT)}) AS history
        WHERE message_id IN (SELECT id FROM messages)
        ORDER BY {_DECIDING_FIRST}
    """)
    # At the end, because the view cannot be read from now on until the transaction ends.
    _replace_view(_SPLIT)


def downgrade() -> None:
    for table in _ON_INSERT:
        op.execute(f"DROP TRIGGER {table}_notified ON {table}")
        op.execute(f"DROP FUNCTION notify_of_{table}")
    op.execute("DROP FUNCTION take_notifications")
    op.execute("DROP FUNCTION update_message_states")
    op.execute("DROP FUNCTION former_ids")
    op.drop_table("notification_outbox")
    op.drop_table("message_states")
    _replace_view(_JOINT)


def _replace_view(receipts: str) -> None:
    op.execute(f"CREATE OR REPLACE VIEW message_history AS {_HISTORY.format(receipts=receipts)}")


def _create_tables() -> None:
    op.create_table(
        "message_states",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("precedence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("provider_message_id", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_message_states")),
    )
    op.create_table(
        "notification_outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_outbox")),
    )
    # Its rows are deleted within milliseconds; the space has to be used again.
    op.execute("""
        ALTER TABLE notification_outbox
        SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)
    """)


# While the database is rebuilt, the rows from before are in the schema `former`. Nobody is notified again of
# the rows that are inserted again. The users of the services have no rights in that schema.
_FORMER_IDS = """
    CREATE FUNCTION former_ids(name text, key text, ids uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    DECLARE
        found uuid[];
    BEGIN
        EXECUTE format('SELECT array_agg(%1$I) FROM former.%2$I WHERE %1$I = ANY ($1)', key, name)
        INTO found USING ids;
        RETURN coalesce(found, '{}');
    END
    $$
"""

# A state is derived from the view, which combines rows that several processes may store at the same time.
# Each of them therefore locks the messages concerned first, and reads the view afterwards: the last one sees
# all rows. A process that stores a receipt does not see a report `sent` that is not yet committed, and the
# reverse; so both first lock the provider's id of the message. Each statement of a function has its own
# snapshot.
#
# PostgreSQL has room for a few thousand locks, hence 1,024 locks for all messages. They are taken in the
# order of their numbers, first those of the provider's ids, so that no two processes wait for each other.
# This requires that a transaction does not store both events and receipts, which are in different streams; if
# it does, PostgreSQL may detect a deadlock, and ingest stores the batch again.
#
# Notifications of a message are inserted under its lock, so that the order of their ids is that of its
# statuses. A status that does not change, or that a later one has overtaken, is no news. Those on the way to
# the current status are news, even if the message is stored after the first reports on it.
_LOCK_PROVIDER_IDS = """
    PERFORM pg_advisory_xact_lock(9001, number) FROM (
        SELECT DISTINCT hashtext(provider || ' ' || provider_message_id) & 1023 AS number
        FROM inserted WHERE provider_message_id IS NOT NULL
        ORDER BY number
    ) AS locks;
"""

_UPDATE_MESSAGE_STATES = f"""
    CREATE FUNCTION update_message_states(changed uuid[]) RETURNS void LANGUAGE plpgsql {_BY_INDEX} AS $$
    DECLARE
        known uuid[] = '{{}}';
    BEGIN
        PERFORM pg_advisory_xact_lock(9002, number) FROM (
            SELECT DISTINCT uuid_hash(id) & 1023 AS number FROM unnest(changed) AS id ORDER BY number
        ) AS locks;

        IF to_regnamespace('former') IS NOT NULL THEN
            SELECT former_ids('message_events', 'id', ids) || former_ids('delivery_receipts', 'id', ids)
            INTO known
            FROM (
                SELECT array_agg(event_id) AS ids FROM message_history WHERE message_id = ANY (changed)
            ) AS reports;
        END IF;

        WITH history AS MATERIALIZED (
            SELECT
                entry.*,
                message.channel,
                message.from_address,
                conversation.key AS conversation_key,
                former.event_id AS former_event_id,
                former.status AS former_status,
                former.generation AS former_generation,
                former.attempt AS former_attempt,
                former.message_id IS NULL
                    OR (entry.generation, entry.precedence, entry.attempt, entry.occurred_at)
                    > (former.generation, former.precedence, former.attempt, former.occurred_at) AS is_later,
                row_number() OVER ranks AS rank,
                lead(entry.status) OVER ranks AS previous_status,
                lead(entry.generation) OVER ranks AS previous_generation
            FROM message_history AS entry
            JOIN messages AS message ON message.id = entry.message_id
            JOIN conversations AS conversation ON conversation.id = message.conversation_id
            LEFT JOIN message_states AS former ON former.message_id = entry.message_id
            WHERE entry.message_id = ANY (changed)
            WINDOW ranks AS (
                PARTITION BY entry.message_id
                ORDER BY entry.generation DESC, entry.precedence DESC, entry.attempt DESC,
                    entry.occurred_at DESC, entry.event_id
            )
        ), stored AS (
            INSERT INTO message_states ({_COLUMNS})
            SELECT {_COLUMNS} FROM history
            WHERE rank = 1 AND (event_id, generation, attempt)
                IS DISTINCT FROM (former_event_id, former_generation, former_attempt)
            ON CONFLICT (message_id) DO UPDATE SET (
                event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
                error, next_attempt_at, occurred_at
            ) = (
                excluded.event_id, excluded.source, excluded.status, excluded.generation, excluded.precedence,
                excluded.attempt, excluded.provider, excluded.provider_message_id, excluded.error,
                excluded.next_attempt_at, excluded.occurred_at
            )
        )
        INSERT INTO notification_outbox (type, cause, content)
        SELECT
            'message.' || status,
            message_id || ' ' || event_id,
            json_build_object(
                'occurred_at', occurred_at,
                'channel', channel,
                'our_spelling', from_address,
                'message_id', message_id,
                'conversation_key', conversation_key,
                'report', json_build_object(
                    'status', status,
                    'source', source,
                    'generation', generation,
                    'attempt', attempt,
                    'provider', CASE WHEN status = 'sent' OR source = 'receipt' THEN provider END,
                    'provider_message_id', CASE WHEN status = 'sent' OR source = 'receipt'
                        THEN provider_message_id END,
                    'error', error
                )
            )
        FROM history
        WHERE status NOT IN ('retrying', 'unknown')
            AND NOT event_id = ANY (known)
            AND CASE
                WHEN is_later THEN (status, generation)
                    IS DISTINCT FROM (previous_status, previous_generation)
                ELSE rank = 1 AND status <> former_status
            END
        ORDER BY message_id, rank DESC;
    END
    $$
"""

_ON_INSERT = {
    "message_events": _LOCK_PROVIDER_IDS
    + """
        PERFORM update_message_states((SELECT array_agg(DISTINCT message_id) FROM inserted));
    """,
    "delivery_receipts": _LOCK_PROVIDER_IDS
    + """
        PERFORM update_message_states(array_agg(DISTINCT message_id)) FROM (
            SELECT message_id FROM inserted WHERE message_id IS NOT NULL
            UNION ALL
            SELECT sent.message_id
            FROM inserted CROSS JOIN LATERAL (
                SELECT message_id FROM message_events
                WHERE provider = inserted.provider AND provider_message_id = inserted.provider_message_id
                    AND status = 'sent'
                OFFSET 0 -- so that an index is used for each of the few rows
            ) AS sent
        ) AS reported
        HAVING count(*) > 0;
    """,
    # A conversation is new if all its messages were inserted now. It is shown as it was after the first one.
    "messages": """
        IF to_regnamespace('former') IS NOT NULL THEN
            SELECT former_ids('messages', 'id', array_agg(inserted.id))
                || former_ids('conversations', 'key', array_agg(conversation.key))
            INTO known
            FROM inserted JOIN conversations AS conversation ON conversation.id = conversation_id;
        END IF;

        INSERT INTO notification_outbox (type, cause, content)
        SELECT
            notification,
            cause,
            json_build_object(
                'occurred_at', created_at,
                'channel', channel,
                'our_spelling', CASE direction WHEN 'inbound' THEN to_address ELSE from_address END,
                'message_id', id,
                'conversation_key', key
            )
        FROM (
            SELECT 'conversation.created' AS notification, key AS cause, *
            FROM (
                SELECT
                    message.*,
                    conversation.key,
                    conversation.message_count,
                    count(*) OVER (PARTITION BY conversation_id) AS inserted_count,
                    row_number() OVER (
                        PARTITION BY conversation_id
                        ORDER BY place_in_time("timestamp", created_at), created_at, message.id
                    ) AS number
                FROM inserted AS message
                JOIN conversations AS conversation ON conversation.id = conversation_id
            ) AS counted
            WHERE message_count = inserted_count AND number = 1
            UNION ALL
            SELECT 'message.received', message.id, message.*, conversation.key, NULL, NULL, NULL
            FROM inserted AS message JOIN conversations AS conversation ON conversation.id = conversation_id
            WHERE direction = 'inbound'
        ) AS news
        WHERE NOT cause = ANY (known)
        ORDER BY place_in_time("timestamp", created_at), created_at, id, notification;
    """,
    "dead_letters": """
        IF to_regnamespace('former') IS NOT NULL THEN
            SELECT former_ids('dead_letters', 'id', array_agg(id)) INTO known FROM inserted;
        END IF;

        INSERT INTO notification_outbox (type, cause, content)
        SELECT
            'dead_letter.created',
            id,
            json_strip_nulls(json_build_object(
                'occurred_at', created_at,
                'channel', channel,
                'our_address', content #> '{request,message,from_key}',
                'dead_letter_id', id,
                'message_id', message_id,
                'conversation_key', content #> '{request,message,conversation_key}'
            ))
        FROM inserted
        WHERE NOT id = ANY (known)
        ORDER BY created_at, id;
    """,
    # At most one of the resolutions counts.
    "dead_letter_resolutions": """
        IF to_regnamespace('former') IS NOT NULL THEN
            SELECT former_ids('dead_letter_resolutions', 'dead_letter_id', array_agg(dead_letter_id))
            INTO known FROM inserted;
        END IF;

        INSERT INTO notification_outbox (type, cause, content)
        SELECT
            'dead_letter.resolved',
            resolved.dead_letter_id || ' ' || resolved.resolution,
            json_strip_nulls(json_build_object(
                'occurred_at', resolved.resolved_at,
                'channel', dead_letter.channel,
                'our_address', dead_letter.content #> '{request,message,from_key}',
                'dead_letter_id', resolved.dead_letter_id,
                'message_id', dead_letter.message_id,
                'conversation_key', dead_letter.content #> '{request,message,conversation_key}',
                'resolution', resolved.resolution,
                'is_sent', EXISTS (
                    SELECT FROM message_history AS entry
                    WHERE entry.message_id = dead_letter.message_id AND entry.status IN ('sent', 'delivered')
                )
            ))
        FROM inserted AS resolved
        LEFT JOIN dead_letters AS dead_letter ON dead_letter.id = resolved.dead_letter_id
        WHERE NOT resolved.dead_letter_id = ANY (known) AND NOT EXISTS (
            SELECT FROM dead_letter_resolutions AS other
            WHERE other.dead_letter_id = resolved.dead_letter_id AND other.resolution > resolved.resolution
        )
        ORDER BY resolved.resolved_at, resolved.dead_letter_id;
    """,
    # Only a change of the state is news: not an opt-out after another one, and not one that is older than
    # what was already stored. Of two changes at the same time, the opt-out counts as the later one.
    "suppression_changes": """
        IF to_regnamespace('former') IS NOT NULL THEN
            SELECT former_ids('suppression_changes', 'id', array_agg(id)) INTO known FROM inserted;
        END IF;
        PERFORM pg_advisory_xact_lock(9003, number) FROM (
            SELECT DISTINCT uuid_hash(key) & 1023 AS number FROM inserted ORDER BY number
        ) AS locks;

        INSERT INTO notification_outbox (type, cause, content)
        SELECT
            'recipient.' || change.state,
            change.id,
            json_strip_nulls(json_build_object(
                'occurred_at', change.occurred_at,
                'channel', change.channel,
                'our_address', change.ours,
                'suppression', json_build_object(
                    'channel', change.channel,
                    'ours', change.ours,
                    'theirs', change.theirs,
                    'state', change.state,
                    'source', change.source,
                    'detail', change.detail,
                    'by', change.changed_by,
                    'occurred_at', change.occurred_at
                )
            ))
        FROM inserted AS change
        WHERE NOT change.id = ANY (known)
            AND NOT EXISTS (
                SELECT FROM suppression_changes AS later
                WHERE later.key = change.key
                    AND (later.occurred_at, later.state = 'opted_out')
                        > (change.occurred_at, change.state = 'opted_out')
                    AND later.id NOT IN (SELECT id FROM inserted)
            )
            AND change.state <> coalesce((
                SELECT earlier.state FROM suppression_changes AS earlier
                WHERE earlier.key = change.key AND earlier.id <> change.id
                    AND (earlier.occurred_at, earlier.state = 'opted_out')
                        <= (change.occurred_at, change.state = 'opted_out')
                ORDER BY earlier.occurred_at DESC, earlier.state = 'opted_out' DESC
                LIMIT 1
            ), 'opted_in')
        ORDER BY change.occurred_at, change.id;
    """,
}

# One process at a time publishes, so that notifications are published in the order of their ids. It commits
# once they are stored in their stream. If it hangs, PostgreSQL ends the transaction, and another process
# takes over. A crash of PostgreSQL may undo the deletion: NATS recognises notifications by their ids. The
# users of the services have no right to delete rows.
_TAKE_NOTIFICATIONS = """
    CREATE FUNCTION take_notifications(maximum integer) RETURNS SETOF notification_outbox
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
    BEGIN
        PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
        PERFORM set_config('synchronous_commit', 'off', true);
        PERFORM pg_advisory_xact_lock(9004, 0);
        RETURN QUERY
            WITH taken AS (
                DELETE FROM notification_outbox
                WHERE id IN (SELECT id FROM notification_outbox ORDER BY id LIMIT maximum)
                RETURNING *
            )
            SELECT * FROM taken ORDER BY id;
    END
    $$
"""
