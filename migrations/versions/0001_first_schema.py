"""First schema.

Revision ID: 0001
Revises: nothing
Create Date: 2026-11-23 04:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


class _TransactionId(sa.types.UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


def upgrade() -> None:
    _create_conversations()
    _create_messages()
    _create_dead_letters()
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
    # Indexes go with their tables.
    for table in (
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
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_participants_channel")),
        sa.CheckConstraint("length(address) BETWEEN 1 AND 320", name=op.f("ck_participants_address_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_participants")),
        sa.UniqueConstraint("address", name=op.f("uq_participants_address")),
    )
    op.create_table(
        "conversations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("message_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "written_by", _TransactionId(), server_default=sa.text("pg_current_xact_id()"), nullable=False
        ),
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
    op.create_index("ix_conversations_written_by", "conversations", ["written_by"])
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
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("from_address", sa.Text(), nullable=False),
        sa.Column("to_address", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attachments", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("provider_message_id", sa.Text(), nullable=True),
        sa.Column(
            "written_by", _TransactionId(), server_default=sa.text("pg_current_xact_id()"), nullable=False
        ),
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
    op.create_table(
        "delivery_receipts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_message_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("precedence", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_receipts")),
    )
    op.create_index(
        "ix_delivery_receipts_provider_message", "delivery_receipts", ["provider", "provider_message_id"]
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


def _create_functions() -> None:
    # Whoever inserts messages of several conversations has locked these in order of their keys.
    op.execute("""
        CREATE FUNCTION count_inserted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE conversations
            SET message_count = conversations.message_count + added.messages,
                last_message_at = greatest(conversations.last_message_at, added.latest),
                updated_at = clock_timestamp(),
                written_by = pg_current_xact_id()
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
    # The lock is a statement of its own, so that the next one counts what was inserted while it waited.
    op.execute("""
        CREATE FUNCTION recount_deleted_messages() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM conversations
            WHERE id IN (SELECT conversation_id FROM deleted_messages)
            ORDER BY key
            FOR NO KEY UPDATE;

            UPDATE conversations
            SET message_count = counted.messages,
                last_message_at = counted.latest,
                updated_at = clock_timestamp(),
                written_by = pg_current_xact_id()
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
    # A receipt names its message by the provider's id for it, which the event `sent` tells.
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
            CASE WHEN receipt.error_code IS NOT NULL THEN jsonb_build_object('code', receipt.error_code) END,
            NULL,
            receipt.occurred_at
        FROM message_events AS sent
        JOIN delivery_receipts AS receipt USING (provider, provider_message_id)
        WHERE sent.status = 'sent'
    """)
