"""Keep what inbound messages lack, order messages by plausible times, and let providers reuse their ids.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-26 04:30:00+00:00
"""

from alembic import op

from migrations.indexes import build_indexes

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

_PLACE = """
    CREATE OR REPLACE FUNCTION place_in_time(written_at timestamptz, arrived_at timestamptz)
    RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT CASE
            WHEN arrived_at - written_at BETWEEN interval '0' AND interval '192 hours' THEN written_at
            ELSE arrived_at
        END
    $$
"""

_COUNT_INSERTED = """
    CREATE OR REPLACE FUNCTION count_inserted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE conversations
        SET message_count = conversations.message_count + added.messages,
            last_message_at = greatest(conversations.last_message_at, added.latest)
        FROM (
            SELECT conversation_id, count(*) AS messages, max({place}) AS latest
            FROM inserted_messages
            GROUP BY conversation_id
        ) AS added
        WHERE conversations.id = added.conversation_id;
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

        UPDATE conversations
        SET message_count = counted.messages, last_message_at = counted.latest
        FROM (
            SELECT deleted.conversation_id, count(messages.id) AS messages, max({place}) AS latest
            FROM (SELECT DISTINCT conversation_id FROM deleted_messages) AS deleted
            LEFT JOIN messages USING (conversation_id)
            GROUP BY deleted.conversation_id
        ) AS counted
        WHERE conversations.id = counted.conversation_id;
        RETURN NULL;
    END
    $$
"""

_BY_PLACE = 'place_in_time("timestamp", created_at)'
_BY_TIMESTAMP = '"timestamp"'


# The previous release still reads this one during the upgrade, so a later one drops it. Earlier versions of
# this migration dropped it.
_REPLACED_INDEX = "ix_messages_conversation_id_timestamp"


def upgrade() -> None:
    # With the constant default, existing rows are not rewritten, and the previous release can insert rows.
    op.execute("ALTER TABLE messages ADD COLUMN IF NOT EXISTS warnings text[] DEFAULT '{}' NOT NULL")
    op.execute("ALTER TABLE messages DROP CONSTRAINT IF EXISTS uq_messages_provider_provider_message_id")
    op.execute(_PLACE)
    op.execute(_COUNT_INSERTED.format(place=_BY_PLACE))
    op.execute(_RECOUNT_DELETED.format(place=_BY_PLACE))
    build_indexes(
        {"ix_messages_conversation_id_place": f"messages (conversation_id, {_BY_PLACE}, created_at, id)"}
    )


def downgrade() -> None:
    op.execute(_COUNT_INSERTED.format(place=_BY_TIMESTAMP))
    op.execute(_RECOUNT_DELETED.format(place=_BY_TIMESTAMP))
    op.create_index(
        _REPLACED_INDEX,
        "messages",
        ["conversation_id", "timestamp", "created_at", "id"],
        if_not_exists=True,
    )
    op.drop_index("ix_messages_conversation_id_place", "messages")
    op.execute("DROP FUNCTION place_in_time")

    op.create_unique_constraint(
        "uq_messages_provider_provider_message_id", "messages", ["provider", "provider_message_id"]
    )
    op.drop_column("messages", "warnings")
