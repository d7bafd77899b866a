"""Delete the attempts to deliver events to webhook endpoints after thirty days.

Revision ID: 0013
Revises: 0012
Create Date: 2026-11-26 10:00:00+00:00
"""

from alembic import op

from migrations.indexes import build_indexes

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None

# The users of the services have no right to delete rows. Processes that delete at the same time take
# different rows.
_DELETE_OLD_ATTEMPTS = """
    CREATE OR REPLACE FUNCTION delete_old_webhook_attempts(maximum integer) RETURNS integer
    LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
        WITH deleted AS (
            DELETE FROM webhook_attempts WHERE id IN (
                SELECT id FROM webhook_attempts
                WHERE started_at < now() - interval '30 days'
                ORDER BY started_at LIMIT maximum
                FOR UPDATE SKIP LOCKED
            )
            RETURNING id
        )
        SELECT count(*)::integer FROM deleted
    $$
"""


def upgrade() -> None:
    op.execute(_DELETE_OLD_ATTEMPTS)
    op.execute("REVOKE EXECUTE ON FUNCTION delete_old_webhook_attempts FROM PUBLIC")
    build_indexes({"ix_webhook_attempts_started_at": "webhook_attempts (started_at)"})


def downgrade() -> None:
    op.drop_index("ix_webhook_attempts_started_at", "webhook_attempts")
    op.execute("DROP FUNCTION delete_old_webhook_attempts")
