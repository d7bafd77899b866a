"""Store the current state of messages, and notify applications of what happens.

Triggers do both, so that nothing is missed while processes of the previous release still store events.

Revision ID: 0009
Revises: 0006
Create Date: 2026-11-26 07:00:00+00:00
"""

# ruff: noqa: S608 - the statements contain our own columns

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None

_COLUMNS = """
    message_id, event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
    error, next_attempt_at, occurred_at
"""

_DECIDING_FIRST = "message_id, generation DESC, precedence DESC, attempt DESC, occurred_at DESC, event_id"


def upgrade() -> None:
    _create_tables()
    op.execute(_FORMER_IDS)
    op.execute(_UPDATE_MESSAGE_STATES)
    op.execute(_TAKE_NOTIFICATIONS)
    for table, function in _ON_INSERT.items():
        op.execute(f"""
            CREATE FUNCTION notify_of_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
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
    op.execute(_FORGET_DELETED_MESSAGES)
    op.execute("""
        CREATE TRIGGER messages_forgotten
        AFTER DELETE ON messages REFERENCING OLD TABLE AS deleted
        FOR EACH STATEMENT EXECUTE FUNCTION forget_deleted_messages()
    """)
    # Since the triggers exist, no event can be stored in the meantime. Ingest waits, and the messages wait in
    # their streams.
    op.execute(f"""
        INSERT INTO message_states ({_COLUMNS})
        SELECT DISTINCT ON (message_id) {_COLUMNS} FROM message_history
        WHERE message_id IN (SELECT id FROM messages)
        ORDER BY {_DECIDING_FIRST}
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER messages_forgotten ON messages")
    op.execute("DROP FUNCTION forget_deleted_messages")
    for table in _ON_INSERT:
        op.execute(f"DROP TRIGGER {table}_notified ON {table}")
        op.execute(f"DROP FUNCTION notify_of_{table}")
    op.execute("DROP FUNCTION take_notifications")
    op.execute("DROP FUNCTION update_message_states")
    op.execute("DROP FUNCTION former_ids")
    op.drop_table("notification_outbox")
    op.drop_table("message_states")


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
        sa.Column("content", postgresql.JSONB(), nullable=False),
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
    CREATE FUNCTION update_message_states(changed uuid[]) RETURNS void LANGUAGE plpgsql AS $$
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
            SELECT * FROM message_history
            WHERE message_id = ANY (changed) AND message_id IN (
                SELECT id FROM messages WHERE id = ANY (changed)
            )
        ), stored AS (
            INSERT INTO message_states AS state ({_COLUMNS})
            SELECT DISTINCT ON (message_id) {_COLUMNS} FROM history ORDER BY {_DECIDING_FIRST}
            ON CONFLICT (message_id) DO UPDATE SET (
                event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
                error, next_attempt_at, occurred_at
            ) = (
                excluded.event_id, excluded.source, excluded.status, excluded.generation, excluded.precedence,
                excluded.attempt, excluded.provider, excluded.provider_message_id, excluded.error,
                excluded.next_attempt_at, excluded.occurred_at
            )
            WHERE (state.event_id, state.generation, state.attempt)
                IS DISTINCT FROM (excluded.event_id, excluded.generation, excluded.attempt)
            RETURNING message_id, event_id
        ), later AS (
            SELECT
                history.*,
                lag(history.status, 1, former.status) OVER steps AS previous_status,
                lag(history.generation, 1, former.generation) OVER steps AS previous_generation
            FROM stored
            JOIN history USING (message_id)
            -- This is the state before the statement.
            LEFT JOIN message_states AS former USING (message_id)
            WHERE former.message_id IS NULL
                OR history.event_id = stored.event_id
                OR (history.generation, history.precedence, history.attempt, history.occurred_at)
                    > (former.generation, former.precedence, former.attempt, former.occurred_at)
            WINDOW steps AS (
                PARTITION BY message_id
                ORDER BY history.generation, history.precedence, history.attempt, history.occurred_at,
                    history.event_id DESC
            )
        )
        INSERT INTO notification_outbox (type, cause, content)
        SELECT
            'message.' || later.status,
            message.id || ' ' || later.event_id,
            jsonb_strip_nulls(jsonb_build_object(
                'occurred_at', later.occurred_at,
                'channel', message.channel,
                'our_spelling', message.from_address,
                'message_id', message.id,
                'conversation_key', conversation.key,
                'report', jsonb_build_object(
                    'status', later.status,
                    'source', later.source,
                    'generation', later.generation,
                    'attempt', later.attempt,
                    'provider', CASE WHEN later.status = 'sent' OR later.source = 'receipt'
                        THEN later.provider END,
                    'provider_message_id', CASE WHEN later.status = 'sent' OR later.source = 'receipt'
                        THEN later.provider_message_id END,
                    'error', later.error
                )
            ))
        FROM later
        JOIN messages AS message ON message.id = later.message_id
        JOIN conversations AS conversation ON conversation.id = message.conversation_id
        WHERE later.status NOT IN ('retrying', 'unknown')
            AND (later.status, later.generation)
                IS DISTINCT FROM (later.previous_status, later.previous_generation)
            AND NOT later.event_id = ANY (known)
        ORDER BY message.id, later.generation, later.precedence, later.attempt, later.occurred_at,
            later.event_id DESC;
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
            FROM inserted JOIN message_events AS sent USING (provider, provider_message_id)
            WHERE sent.status = 'sent'
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
            jsonb_build_object(
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
            jsonb_strip_nulls(jsonb_build_object(
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
            jsonb_strip_nulls(jsonb_build_object(
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
            jsonb_strip_nulls(jsonb_build_object(
                'occurred_at', change.occurred_at,
                'channel', change.channel,
                'our_address', change.ours,
                'suppression', jsonb_build_object(
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

_FORGET_DELETED_MESSAGES = """
    CREATE FUNCTION forget_deleted_messages() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public AS $$
    BEGIN
        DELETE FROM message_states WHERE message_id IN (SELECT id FROM deleted);
        RETURN NULL;
    END
    $$
"""

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
