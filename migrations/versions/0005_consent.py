"""Consent.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-23 08:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
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
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_consent_changes_channel")),
        sa.CheckConstraint("state IN ('opted_out', 'opted_in')", name=op.f("ck_consent_changes_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent_changes")),
    )
    op.create_index("ix_consent_changes_key_occurred_at", "suppression_changes", ["key", "occurred_at"])
    op.create_index("ix_consent_changes_theirs", "suppression_changes", ["theirs"])
    op.create_index(
        "ix_consent_changes_opted_out",
        "suppression_changes",
        [sa.text("occurred_at DESC"), sa.text("id DESC")],
        postgresql_where=sa.text("state = 'opted_out'"),
    )


def downgrade() -> None:
    op.drop_table("suppression_changes")
