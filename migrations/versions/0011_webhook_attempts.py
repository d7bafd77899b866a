"""Add the attempts to deliver events to the webhook endpoints of applications.

Revision ID: 0011
Revises: 0010
Create Date: 2026-11-26 06:50:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempts")),
    )
    newest_first = [sa.text("started_at DESC"), sa.text("id DESC")]
    op.create_index("ix_webhook_attempts_newest", "webhook_attempts", ["endpoint_id", *newest_first])
    op.create_index(
        "ix_webhook_attempts_succeeded", "webhook_attempts", ["endpoint_id", "succeeded", *newest_first]
    )
    op.create_index("ix_webhook_attempts_event", "webhook_attempts", ["endpoint_id", "event_id"])


def downgrade() -> None:
    op.drop_table("webhook_attempts")
