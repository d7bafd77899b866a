"""Sends at a later time.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-23 07:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("send_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_message_events_scheduled",
        "message_events",
        ["next_attempt_at", "message_id"],
        postgresql_where=sa.text("status = 'scheduled'"),
    )


def downgrade() -> None:
    op.drop_index("ix_message_events_scheduled", "message_events")
    op.drop_column("messages", "send_at")
