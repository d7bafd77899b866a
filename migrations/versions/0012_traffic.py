"""Count messages by minute, for the operations of the API.

Revision ID: 0012
Revises: 0011
Create Date: 2026-11-26 08:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None

# The users of the services have no right to delete rows.
_COUNT_TRAFFIC = """
    CREATE FUNCTION count_traffic(counts jsonb) RETURNS void LANGUAGE sql SECURITY DEFINER
    SET search_path = public AS $$
        INSERT INTO traffic (minute, channel, provider, kind, count)
        SELECT minute, channel, provider, kind, count
        FROM jsonb_to_recordset(counts)
            AS given (minute timestamptz, channel text, provider text, kind text, count bigint)
        ON CONFLICT (minute, channel, provider, kind)
        DO UPDATE SET count = traffic.count + excluded.count;

        DELETE FROM traffic WHERE minute < now() - interval '1 day';
    $$
"""


def upgrade() -> None:
    op.create_table(
        "traffic",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "channel", "provider", "kind", name=op.f("pk_traffic")),
    )
    op.execute(_COUNT_TRAFFIC)
    op.execute("REVOKE EXECUTE ON FUNCTION count_traffic FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION count_traffic")
    op.drop_table("traffic")
