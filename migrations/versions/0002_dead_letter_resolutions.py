"""What became of dead letters.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-23 09:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "dead_letter_resolutions",
        sa.Column("dead_letter_id", sa.Uuid(), nullable=False),
        sa.Column("resolution", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "resolution IN ('replayed', 'discarded')", name=op.f("ck_dead_letter_resolutions_resolution")
        ),
        sa.CheckConstraint(
            "resolution <> 'discarded' OR reason IS NOT NULL",
            name=op.f("ck_dead_letter_resolutions_discard_has_reason"),
        ),
        sa.PrimaryKeyConstraint("dead_letter_id", "resolution", name=op.f("pk_dead_letter_resolutions")),
    )


def downgrade() -> None:
    op.drop_table("dead_letter_resolutions")
