"""Add the priority of messages.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-25 21:40:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    # With the constant default, existing rows are not rewritten, and the previous release can still insert
    # messages. Adding a check constraint would scan the whole table under an exclusive lock.
    priority = sa.Column("priority", sa.Text(), server_default="transactional", nullable=False)
    op.add_column("messages", priority)


def downgrade() -> None:
    op.drop_column("messages", "priority")
