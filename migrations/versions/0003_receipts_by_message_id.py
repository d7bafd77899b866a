"""Receipts by message id.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-23 07:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

_VIEW = """
    CREATE OR REPLACE VIEW message_history AS
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
        {error},
        NULL,
        receipt.occurred_at
    FROM message_events AS sent
    JOIN delivery_receipts AS receipt {found}
    WHERE sent.status = 'sent'
"""


def upgrade() -> None:
    op.add_column("delivery_receipts", sa.Column("message_id", sa.Uuid(), nullable=True))
    op.add_column("delivery_receipts", sa.Column("error_detail", sa.Text(), nullable=True))
    op.create_index(
        "ix_delivery_receipts_message_id",
        "delivery_receipts",
        ["message_id"],
        postgresql_where=sa.text("message_id IS NOT NULL"),
    )
    op.execute(
        _VIEW.format(
            error="""
                CASE WHEN receipt.error_code IS NOT NULL THEN jsonb_strip_nulls(
                    jsonb_build_object('code', receipt.error_code, 'detail', receipt.error_detail)
                ) END
            """,
            found="""
                ON receipt.provider = sent.provider AND (
                    receipt.provider_message_id = sent.provider_message_id
                    OR receipt.message_id = sent.message_id
                )
            """,
        )
    )


def downgrade() -> None:
    op.execute(
        _VIEW.format(
            error="""
                CASE WHEN receipt.error_code IS NOT NULL
                THEN jsonb_build_object('code', receipt.error_code) END
            """,
            found="USING (provider, provider_message_id)",
        )
    )
    op.drop_index("ix_delivery_receipts_message_id", "delivery_receipts")
    op.drop_column("delivery_receipts", "error_detail")
    op.drop_column("delivery_receipts", "message_id")
