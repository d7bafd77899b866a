"""Store what clients attach to their messages, and what lists are ordered and filtered by.

Revision ID: 0010
Revises: 0006
Create Date: 2026-11-26 07:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0010"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("reference", sa.Text(), nullable=True))
    op.add_column("messages", sa.Column("metadata", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "metadata")
    op.drop_column("messages", "reference")
