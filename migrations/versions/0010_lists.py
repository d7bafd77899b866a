"""Store what clients attach to their messages, and what lists are ordered and filtered by.

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-26 07:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from migrations.indexes import build_indexes

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None

_COUNT_INSERTED = """
    CREATE OR REPLACE FUNCTION count_inserted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        WITH counted AS (
            UPDATE conversations
            SET message_count = conversations.message_count + added.messages,
                last_message_at = greatest(conversations.last_message_at, added.latest)
            FROM (
                SELECT conversation_id, count(*) AS messages,
                    max(place_in_time("timestamp", created_at)) AS latest
                FROM inserted_messages
                GROUP BY conversation_id
            ) AS added
            WHERE conversations.id = added.conversation_id
            RETURNING conversations.id, conversations.last_message_at
        )
        UPDATE conversation_participants AS link
        SET last_message_at = counted.last_message_at
        FROM counted
        WHERE link.conversation_id = counted.id
            AND link.last_message_at IS DISTINCT FROM counted.last_message_at;

        INSERT INTO participant_messages (participant_id, created_at, message_id)
        SELECT link.participant_id, message.created_at, message.id
        FROM inserted_messages AS message
        JOIN conversation_participants AS link USING (conversation_id)
        ON CONFLICT DO NOTHING;

        INSERT INTO message_metadata (key, value, created_at, message_id)
        SELECT pair.key, pair.value, message.created_at, message.id
        FROM inserted_messages AS message, jsonb_each_text(message.metadata) AS pair
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END
    $$
"""
_RECOUNT_DELETED = """
    CREATE OR REPLACE FUNCTION recount_deleted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM conversations
        WHERE id IN (SELECT conversation_id FROM deleted_messages)
        ORDER BY key
        FOR NO KEY UPDATE;

        WITH counted AS (
            UPDATE conversations
            SET message_count = counted.messages, last_message_at = counted.latest
            FROM (
                SELECT deleted.conversation_id, count(messages.id) AS messages,
                    max(place_in_time("timestamp", created_at)) AS latest
                FROM (SELECT DISTINCT conversation_id FROM deleted_messages) AS deleted
                LEFT JOIN messages USING (conversation_id)
                GROUP BY deleted.conversation_id
            ) AS counted
            WHERE conversations.id = counted.conversation_id
            RETURNING conversations.id, conversations.last_message_at
        )
        UPDATE conversation_participants AS link
        SET last_message_at = counted.last_message_at
        FROM counted
        WHERE link.conversation_id = counted.id;

        DELETE FROM participant_messages AS entry
        USING deleted_messages AS message
        JOIN conversation_participants AS link USING (conversation_id)
        WHERE entry.participant_id = link.participant_id AND entry.created_at = message.created_at
            AND entry.message_id = message.id;

        DELETE FROM message_metadata AS entry
        USING deleted_messages AS message, jsonb_each_text(message.metadata) AS pair
        WHERE entry.key = pair.key AND entry.value = pair.value AND entry.created_at = message.created_at
            AND entry.message_id = message.id;
        RETURN NULL;
    END
    $$
"""

# A dead letter, its resolution and a later generation of its message may be stored at the same time, by
# processes that do not see each other's rows. Whoever stores one of them takes this lock, so that the last
# one sees them all. Dead letters and resolutions take it before they are inserted: a process that waits for
# the lock must not have rows that the one with the lock waits for. Events take it after the locks of their
# messages, since triggers are executed in the order of their names. Dead letters have their own stream;
# a transaction that also stores receipts may end in a deadlock, after which ingest stores the batch again.
_LOCK_DEAD_LETTERS = """
    CREATE OR REPLACE FUNCTION lock_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('dead_letters.state'));
        RETURN NULL;
    END
    $$
"""
# A dead letter that was both replayed and discarded, perhaps with the NATS CLI, counts as replayed.
_REFRESH_DEAD_LETTERS = """
    CREATE OR REPLACE FUNCTION refresh_dead_letters(ids uuid[]) RETURNS void LANGUAGE sql AS $$
        UPDATE dead_letters SET state = derived.state
        FROM (
            SELECT id, CASE
                WHEN EXISTS (
                    SELECT FROM dead_letter_resolutions
                    WHERE dead_letter_id = letter.id AND resolution = 'replayed'
                ) OR EXISTS (
                    SELECT FROM message_events
                    WHERE message_id = letter.message_id AND generation > letter.generation
                ) THEN 'replayed'
                WHEN EXISTS (
                    SELECT FROM dead_letter_resolutions WHERE dead_letter_id = letter.id
                ) THEN 'discarded'
                ELSE 'open'
            END AS state
            FROM dead_letters AS letter WHERE id = ANY(ids)
        ) AS derived
        WHERE dead_letters.id = derived.id AND dead_letters.state <> derived.state
    $$
"""
_REFRESH_INSERTED_DEAD_LETTERS = """
    CREATE OR REPLACE FUNCTION refresh_inserted_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM refresh_dead_letters(ARRAY(SELECT id FROM inserted_dead_letters));
        RETURN NULL;
    END
    $$
"""
_REFRESH_RESOLVED_DEAD_LETTERS = """
    CREATE OR REPLACE FUNCTION refresh_resolved_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM refresh_dead_letters(ARRAY(SELECT dead_letter_id FROM inserted_resolutions));
        RETURN NULL;
    END
    $$
"""
_REFRESH_REPLAYED_DEAD_LETTERS = """
    CREATE OR REPLACE FUNCTION refresh_replayed_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM inserted_events WHERE generation > 0) THEN
            PERFORM pg_advisory_xact_lock(hashtext('dead_letters.state'));
            PERFORM refresh_dead_letters(ARRAY(
                SELECT id FROM dead_letters
                WHERE message_id IN (SELECT message_id FROM inserted_events WHERE generation > 0)
            ));
        END IF;
        RETURN NULL;
    END
    $$
"""

# Of the changes with the same key, the latest one applies, or else the opt-out. Processes that store changes
# at the same time wait for each other at the key.
_APPLY_CHANGES = """
    INSERT INTO suppressions AS current (key, change_id, channel, theirs, state, occurred_at)
    SELECT DISTINCT ON (key) key, id, channel, theirs, state, occurred_at
    FROM {changes}
    ORDER BY key, occurred_at DESC, state = 'opted_out' DESC, id DESC
    ON CONFLICT (key) DO UPDATE
    SET change_id = excluded.change_id, state = excluded.state, occurred_at = excluded.occurred_at
    WHERE (excluded.occurred_at, excluded.state = 'opted_out', excluded.change_id)
        > (current.occurred_at, current.state = 'opted_out', current.change_id)
"""
_APPLY_SUPPRESSION_CHANGES = f"""
    CREATE OR REPLACE FUNCTION apply_suppression_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_APPLY_CHANGES.format(changes="inserted_changes")};
        RETURN NULL;
    END
    $$
"""

_DATE_STATE = """
    CREATE OR REPLACE FUNCTION date_message_state() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT created_at INTO NEW.created_at FROM messages WHERE id = NEW.message_id;
        RETURN NEW;
    END
    $$
"""

_FUNCTIONS = (
    _DATE_STATE,
    _COUNT_INSERTED,
    _RECOUNT_DELETED,
    _LOCK_DEAD_LETTERS,
    _REFRESH_DEAD_LETTERS,
    _REFRESH_INSERTED_DEAD_LETTERS,
    _REFRESH_RESOLVED_DEAD_LETTERS,
    _REFRESH_REPLAYED_DEAD_LETTERS,
    _APPLY_SUPPRESSION_CHANGES,
)
# Each connection keeps the plans of a function. Those made while the tables were empty would otherwise read
# whole tables until PostgreSQL analyses them.
_BY_INDEX = (
    "count_inserted_messages",
    "recount_deleted_messages",
    "refresh_inserted_dead_letters",
    "refresh_resolved_dead_letters",
    "refresh_replayed_dead_letters",
)

_TRIGGERS = (
    """
    CREATE OR REPLACE TRIGGER message_states_dated BEFORE INSERT ON message_states
    FOR EACH ROW EXECUTE FUNCTION date_message_state()
    """,
    """
    CREATE OR REPLACE TRIGGER message_events_refresh_dead_letters
    AFTER INSERT ON message_events REFERENCING NEW TABLE AS inserted_events
    FOR EACH STATEMENT EXECUTE FUNCTION refresh_replayed_dead_letters()
    """,
    """
    CREATE OR REPLACE TRIGGER dead_letters_locked BEFORE INSERT ON dead_letters
    FOR EACH STATEMENT EXECUTE FUNCTION lock_dead_letters()
    """,
    """
    CREATE OR REPLACE TRIGGER dead_letters_refreshed
    AFTER INSERT ON dead_letters REFERENCING NEW TABLE AS inserted_dead_letters
    FOR EACH STATEMENT EXECUTE FUNCTION refresh_inserted_dead_letters()
    """,
    """
    CREATE OR REPLACE TRIGGER dead_letters_locked BEFORE INSERT ON dead_letter_resolutions
    FOR EACH STATEMENT EXECUTE FUNCTION lock_dead_letters()
    """,
    """
    CREATE OR REPLACE TRIGGER dead_letters_refreshed_by_resolutions
    AFTER INSERT ON dead_letter_resolutions REFERENCING NEW TABLE AS inserted_resolutions
    FOR EACH STATEMENT EXECUTE FUNCTION refresh_resolved_dead_letters()
    """,
    """
    CREATE OR REPLACE TRIGGER suppressions_changed
    AFTER INSERT ON suppression_changes REFERENCING NEW TABLE AS inserted_changes
    FOR EACH STATEMENT EXECUTE FUNCTION apply_suppression_changes()
    """,
)

# The conversations are locked as ingest locks them, and their participants only after them. Each portion is a
# transaction of its own, so that ingest waits for a moment at most.
_FILL_CONVERSATIONS = """
    DO $$
    DECLARE
        first bigint := 0;
        last bigint;
    BEGIN
        LOOP
            SELECT max(id) INTO last
            FROM (SELECT id FROM conversations WHERE id > first ORDER BY id LIMIT 5000) AS portion;
            EXIT WHEN last IS NULL;

            PERFORM FROM conversations WHERE id > first AND id <= last ORDER BY key FOR NO KEY UPDATE;

            UPDATE conversation_participants AS link
            SET last_message_at = conversation.last_message_at
            FROM conversations AS conversation
            WHERE link.conversation_id = conversation.id
                AND conversation.id > first AND conversation.id <= last
                AND link.last_message_at IS DISTINCT FROM conversation.last_message_at;

            INSERT INTO participant_messages (participant_id, created_at, message_id)
            SELECT link.participant_id, message.created_at, message.id
            FROM messages AS message
            JOIN conversation_participants AS link USING (conversation_id)
            WHERE message.conversation_id > first AND message.conversation_id <= last
            ON CONFLICT DO NOTHING;

            UPDATE message_states AS state
            SET created_at = message.created_at
            FROM messages AS message
            WHERE message.conversation_id > first AND message.conversation_id <= last
                AND state.message_id = message.id AND state.created_at IS NULL;

            COMMIT;
            first := last;
        END LOOP;
    END
    $$
"""
_FILL_DEAD_LETTERS = """
    DO $$
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext('dead_letters.state'));
        PERFORM refresh_dead_letters(ARRAY(SELECT id FROM dead_letters));
    END
    $$
"""
_FILLS = (_FILL_CONVERSATIONS, _FILL_DEAD_LETTERS, _APPLY_CHANGES.format(changes="suppression_changes"))

_OPTED_OUT = "WHERE state = 'opted_out'"
_INDEXES = {
    "ix_messages_channel_direction_created_at": "messages (channel, direction, created_at, id)",
    "ix_messages_conversation_id_created_at": "messages (conversation_id, created_at, id)",
    "ix_messages_reference": "messages (reference, created_at, id) WHERE reference IS NOT NULL",
    "ix_messages_provider": "messages (provider, created_at, id) WHERE provider IS NOT NULL",
    "ix_message_states_status": "message_states (status, created_at, message_id)",
    "ix_message_states_provider": "message_states (provider, created_at, message_id) "
    "WHERE provider IS NOT NULL",
    "ix_message_states_error_code": "message_states ((error ->> 'code'), created_at, message_id) "
    "WHERE (error ->> 'code') IS NOT NULL",
    "ix_message_states_scheduled": "message_states (next_attempt_at, message_id) WHERE status = 'scheduled'",
    "ix_conversations_channel_last_message_at": "conversations (channel, last_message_at DESC, id DESC)",
    "ix_conversation_participants_last_message_at": "conversation_participants "
    "(participant_id, last_message_at DESC, conversation_id DESC)",
    "ix_dead_letters_state_created_at": "dead_letters (state, created_at DESC, id DESC)",
    "ix_dead_letters_reason_state_created_at": "dead_letters (reason, state, created_at DESC, id DESC)",
    "ix_suppressions_channel_occurred_at": "suppressions "
    f"(channel, occurred_at DESC, change_id DESC) {_OPTED_OUT}",
    "ix_suppressions_theirs": f"suppressions (theirs, occurred_at DESC, change_id DESC) {_OPTED_OUT}",
}
# The previous release still reads these during the upgrade, so a later one drops them. Earlier versions of
# this migration dropped them.
_REPLACED_INDEXES = {
    "ix_message_events_scheduled": "message_events (next_attempt_at, message_id) WHERE status = 'scheduled'",
    "ix_conversations_last_message_at_id": "conversations (last_message_at DESC, id DESC)",
    "ix_conversation_participants_participant_id": "conversation_participants "
    "(participant_id, conversation_id)",
    "ix_suppression_changes_opted_out": f"suppression_changes (occurred_at DESC, id DESC) {_OPTED_OUT}",
    "ix_suppression_changes_theirs": "suppression_changes (theirs)",
    "ix_dead_letters_created_at": "dead_letters (created_at DESC, id DESC)",
}


def upgrade() -> None:
    """Change the schema in one short transaction, and then fill it while it is in use.

    From the end of the transaction on, the triggers maintain what they insert. If a later step fails, the
    migration is run again: every step may be repeated.
    """
    op.execute("ALTER TABLE conversation_participants ADD COLUMN IF NOT EXISTS last_message_at timestamptz")
    op.execute(
        "ALTER TABLE messages ADD COLUMN IF NOT EXISTS reference text,"
        " ADD COLUMN IF NOT EXISTS metadata jsonb"
    )
    op.execute("ALTER TABLE message_states ADD COLUMN IF NOT EXISTS created_at timestamptz")
    op.execute("ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS state text DEFAULT 'open' NOT NULL")
    _create_tables()
    for statement in (*_FUNCTIONS, *_TRIGGERS):
        op.execute(statement)
    for function in _BY_INDEX:
        for setting in ("seqscan", "hashjoin", "mergejoin"):
            op.execute(f"ALTER FUNCTION {function} SET enable_{setting} = off")
    with op.get_context().autocommit_block():
        for statement in _FILLS:
            op.execute(statement)
    build_indexes(_INDEXES)


def downgrade() -> None:
    for name, columns in _REPLACED_INDEXES.items():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")
    op.execute("DROP TRIGGER message_states_dated ON message_states")
    op.execute("DROP TRIGGER suppressions_changed ON suppression_changes")
    op.execute("DROP TRIGGER dead_letters_refreshed_by_resolutions ON dead_letter_resolutions")
    op.execute("DROP TRIGGER dead_letters_locked ON dead_letter_resolutions")
    op.execute("DROP TRIGGER dead_letters_refreshed ON dead_letters")
    op.execute("DROP TRIGGER dead_letters_locked ON dead_letters")
    op.execute("DROP TRIGGER message_events_refresh_dead_letters ON message_events")
    op.execute(
        "DROP FUNCTION apply_suppression_changes, refresh_replayed_dead_letters,"
        " refresh_resolved_dead_letters, refresh_inserted_dead_letters, refresh_dead_letters,"
        " lock_dead_letters, date_message_state"
    )
    op.execute(_FORMER_COUNT_INSERTED)
    op.execute(_FORMER_RECOUNT_DELETED)
    for table in ("suppressions", "message_metadata", "participant_messages"):
        op.drop_table(table)
    # Dropping a column drops its indexes as well.
    op.drop_index("ix_messages_channel_direction_created_at", "messages")
    op.drop_index("ix_messages_conversation_id_created_at", "messages")
    op.drop_index("ix_messages_provider", "messages")
    op.drop_index("ix_conversations_channel_last_message_at", "conversations")
    for index in ("status", "provider", "error_code", "scheduled"):
        op.drop_index(f"ix_message_states_{index}", "message_states")
    op.drop_column("message_states", "created_at")
    op.drop_column("dead_letters", "state")
    op.drop_column("messages", "metadata")
    op.drop_column("messages", "reference")
    op.drop_column("conversation_participants", "last_message_at")


def _create_tables() -> None:
    op.create_table(
        "participant_messages",
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint(
            "participant_id", "created_at", "message_id", name=op.f("pk_participant_messages")
        ),
        if_not_exists=True,
    )
    op.create_table(
        "message_metadata",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("key", "value", "created_at", "message_id", name=op.f("pk_message_metadata")),
        if_not_exists=True,
    )
    op.create_table(
        "suppressions",
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("change_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("theirs", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_suppressions")),
        if_not_exists=True,
    )


_FORMER_COUNT_INSERTED = """
    CREATE OR REPLACE FUNCTION count_inserted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE conversations
        SET message_count = conversations.message_count + added.messages,
            last_message_at = greatest(conversations.last_message_at, added.latest)
        FROM (
            SELECT conversation_id, count(*) AS messages,
                max(place_in_time("timestamp", created_at)) AS latest
            FROM inserted_messages
            GROUP BY conversation_id
        ) AS added
        WHERE conversations.id = added.conversation_id;
        RETURN NULL;
    END
    $$
"""
_FORMER_RECOUNT_DELETED = """
    CREATE OR REPLACE FUNCTION recount_deleted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM conversations
        WHERE id IN (SELECT conversation_id FROM deleted_messages)
        ORDER BY key
        FOR NO KEY UPDATE;

        UPDATE conversations
        SET message_count = counted.messages, last_message_at = counted.latest
        FROM (
            SELECT deleted.conversation_id, count(messages.id) AS messages,
                max(place_in_time("timestamp", created_at)) AS latest
            FROM (SELECT DISTINCT conversation_id FROM deleted_messages) AS deleted
            LEFT JOIN messages USING (conversation_id)
            GROUP BY deleted.conversation_id
        ) AS counted
        WHERE conversations.id = counted.conversation_id;
        RETURN NULL;
    END
    $$
"""
