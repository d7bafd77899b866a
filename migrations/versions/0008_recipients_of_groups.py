"""Add the recipients of messages to a group.

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-26 06:45:00+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    # The previous release inserts messages without them. A constant default rewrites no row.
    op.add_column(
        "messages",
        sa.Column("recipients", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("messages", "recipients")
