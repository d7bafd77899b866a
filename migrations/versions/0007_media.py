"""Add the media of inbound messages.

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-26 06:40:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "media",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('pending', 'stored', 'failed')", name=op.f("ck_media_status")),
        sa.CheckConstraint(
            "status <> 'stored' OR (digest IS NOT NULL AND size IS NOT NULL)",
            name=op.f("ck_media_stored_has_digest"),
        ),
        sa.PrimaryKeyConstraint("id", "status", name=op.f("pk_media")),
    )
    op.create_index("ix_media_message_id", "media", ["message_id"])


def downgrade() -> None:
    op.drop_table("media")
