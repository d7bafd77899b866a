"""First schema.

Revision ID: 0001
Revises: nothing
Create Date: 2026-11-25 18:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    _create_conversations()
    _create_messages()
    _create_reports()
    _create_dead_letters()
    _create_suppression_changes()
    # A trigger needs its function, and the view its tables.
    _create_functions()
    _create_triggers()
    _create_view()


def downgrade() -> None:
    op.execute("DROP VIEW message_history")
    op.execute("DROP TRIGGER messages_inserted ON messages")
    op.execute("DROP TRIGGER messages_deleted ON messages")
    op.execute("DROP FUNCTION count_inserted_messages()")
    op.execute("DROP FUNCTION recount_deleted_messages()")
    # Dropping a table drops its indexes as well.
    for table in (
        "suppression_changes",
        "dead_letter_resolutions",
        "dead_letters",
        "delivery_receipts",
        "message_events",
        "messages",
        "conversation_participants",
        "conversations",
        "participants",
    ):
        op.drop_table(table)


def _create_conversations() -> None:
    op.create_table(
        "participants",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.CheckConstraint("length(address) BETWEEN 1 AND 320", name=op.f("ck_participants_address_length")),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_participants_channel")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_participants")),
        sa.UniqueConstraint("address", "channel", name=op.f("uq_participants_address_channel")),
    )
    op.create_table(
        "conversations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("message_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_conversations_channel")),
        sa.CheckConstraint("message_count >= 0", name=op.f("ck_conversations_message_count")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
        sa.UniqueConstraint("key", name=op.f("uq_conversations_key")),
    )
    op.create_index(
        "ix_conversations_last_message_at_id",
        "conversations",
        [sa.text("last_message_at DESC"), sa.text("id DESC")],
    )
    op.create_table(
        "conversation_participants",
        sa.Column("conversation_id", sa.BigInteger(), nullable=False),
        sa.Column("participant_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_conversation_participants_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name=op.f("fk_conversation_participants_participant_id")
        ),
        sa.PrimaryKeyConstraint(
            "conversation_id", "participant_id", name=op.f("pk_conversation_participants")
        ),
    )
    op.create_index(
        "ix_conversation_participants_participant_id",
        "conversation_participants",
        ["participant_id", "conversation_id"],
    )


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("from_address", sa.Text(), nullable=False),
        sa.Column("to_address", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attachments", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("send_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("provider_message_id", sa.Text(), nullable=True),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_messages_channel")),
        sa.CheckConstraint("direction IN ('inbound', 'outbound')", name=op.f("ck_messages_direction")),
        sa.CheckConstraint("type IN ('sms', 'mms', 'email')", name=op.f("ck_messages_type")),
        sa.CheckConstraint(
            "direction = 'outbound' OR (provider IS NOT NULL AND provider_message_id IS NOT NULL)",
            name=op.f("ck_messages_inbound_has_provider"),
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_messages_conversation_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint(
            "provider", "provider_message_id", name=op.f("uq_messages_provider_provider_message_id")
        ),
    )
    op.create_index(
        "ix_messages_conversation_id_timestamp",
        "messages",
        ["conversation_id", "timestamp", "created_at", "id"],
    )


def _create_reports() -> None:
    op.create_table(
        "message_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("precedence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("provider_message_id", sa.Text(), nullable=True),
        sa.Column("error", JSONB(), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_events")),
    )
    op.create_index("ix_message_events_message_id", "message_events", ["message_id"])
    op.create_index(
        "ix_message_events_provider_message",
        "message_events",
        ["provider", "provider_message_id"],
        postgresql_where=sa.text("provider_message_id IS NOT NULL"),
    )
    op.create_index(
        "ix_message_events_scheduled",
        "message_events",
        ["next_attempt_at", "message_id"],
        postgresql_where=sa.text("status = 'scheduled'"),
    )
    op.create_table(
        "delivery_receipts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_message_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("precedence", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_receipts")),
    )
    op.create_index(
        "ix_delivery_receipts_provider_message", "delivery_receipts", ["provider", "provider_message_id"]
    )
    op.create_index(
        "ix_delivery_receipts_message_id",
        "delivery_receipts",
        ["message_id"],
        postgresql_where=sa.text("message_id IS NOT NULL"),
    )


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("content", JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("direction IN ('inbound', 'outbound')", name=op.f("ck_dead_letters_direction")),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_dead_letters_channel")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index(
        "ix_dead_letters_created_at", "dead_letters", [sa.text("created_at DESC"), sa.text("id DESC")]
    )
    op.create_index(
        "ix_dead_letters_message_id",
        "dead_letters",
        ["message_id"],
        postgresql_where=sa.text("message_id IS NOT NULL"),
    )
    op.create_table(
        "dead_letter_resolutions",
        sa.Column("dead_letter_id", sa.Uuid(), nullable=False),
        sa.Column("resolution", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "resolution IN ('replayed', 'discarded')", name=op.f("ck_dead_letter_resolutions_resolution")
        ),
        sa.CheckConstraint(
            "resolution <> 'discarded' OR reason IS NOT NULL",
            name=op.f("ck_dead_letter_resolutions_discard_has_reason"),
        ),
        sa.PrimaryKeyConstraint("dead_letter_id", "resolution", name=op.f("pk_dead_letter_resolutions")),
    )


def _create_suppression_changes() -> None:
    op.create_table(
        "suppression_changes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("ours", sa.Text(), nullable=True),
        sa.Column("theirs", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("changed_by", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_suppression_changes_channel")),
        sa.CheckConstraint("state IN ('opted_out', 'opted_in')", name=op.f("ck_suppression_changes_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppression_changes")),
    )
    op.create_index("ix_suppression_changes_key_occurred_at", "suppression_changes", ["key", "occurred_at"])
    op.create_index("ix_suppression_changes_theirs", "suppression_changes", ["theirs"])
    op.create_index(
        "ix_suppression_changes_opted_out",
        "suppression_changes",
        [sa.text("occurred_at DESC"), sa.text("id DESC")],
        postgresql_where=sa.text("state = 'opted_out'"),
    )


def _create_functions() -> None:
    # A transaction that inserts messages of several conversations has already locked these, in the order of
    # their keys.
    op.execute("""
        CREATE FUNCTION count_inserted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE conversations
            SET message_count = conversations.message_count + added.messages,
                last_message_at = greatest(conversations.last_message_at, added.latest)
            FROM (
                SELECT conversation_id, count(*) AS messages, max("timestamp") AS latest
                FROM inserted_messages
                GROUP BY conversation_id
            ) AS added
            WHERE conversations.id = added.conversation_id;
            RETURN NULL;
        END
        $$
    """)
    # The lock is a separate statement, so that the next one also counts the messages that were inserted
    # while this one waited.
    op.execute("""
        CREATE FUNCTION recount_deleted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM conversations
            WHERE id IN (SELECT conversation_id FROM deleted_messages)
            ORDER BY key
            FOR NO KEY UPDATE;

            UPDATE conversations
            SET message_count = counted.messages, last_message_at = counted.latest
            FROM (
                SELECT deleted.conversation_id, count(messages.id) AS messages, max("timestamp") AS latest
                FROM (SELECT DISTINCT conversation_id FROM deleted_messages) AS deleted
                LEFT JOIN messages USING (conversation_id)
                GROUP BY deleted.conversation_id
            ) AS counted
            WHERE conversations.id = counted.conversation_id;
            RETURN NULL;
        END
        $$
    """)


def _create_triggers() -> None:
    op.execute("""
        CREATE TRIGGER messages_inserted
        AFTER INSERT ON messages REFERENCING NEW TABLE AS inserted_messages
        FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_messages()
    """)
    op.execute("""
        CREATE TRIGGER messages_deleted
        AFTER DELETE ON messages REFERENCING OLD TABLE AS deleted_messages
        FOR EACH STATEMENT EXECUTE FUNCTION recount_deleted_messages()
    """)


def _create_view() -> None:
    # A receipt belongs to the message that was sent under the provider's id, or that the provider names by
    # our id. It has the generation and the attempt of the event `sent`.
    op.execute("""
        CREATE VIEW message_history AS
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
        JOIN delivery_receipts AS receipt ON receipt.provider = sent.provider AND (
            receipt.provider_message_id = sent.provider_message_id
            OR receipt.message_id = sent.message_id
        )
        WHERE sent.status = 'sent'
    """)
