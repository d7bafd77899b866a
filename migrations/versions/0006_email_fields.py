"""Add the fields of e-mails, such as their copies.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-26 04:30:00+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    # Without a default, existing rows are not rewritten, and the previous release can still insert messages.
    op.add_column("messages", sa.Column("email", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "email")
