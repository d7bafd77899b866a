"""Indexes of tables that are in use."""

from collections.abc import Mapping

from alembic import context, op
from sqlalchemy import text

FORMER_INDEXES = {
    "ix_conversation_participants_participant_id",
    "ix_conversations_last_message_at_id",
    "ix_dead_letters_created_at",
    "ix_message_events_scheduled",
    "ix_messages_conversation_id_timestamp",
    "ix_suppression_changes_opted_out",
    "ix_suppression_changes_theirs",
}
"""Indexes that only release 0.1.0 reads. The first migration after the next release drops those that exist,
concurrently, and empties this set."""

_IS_INVALID = text("SELECT true FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def build_indexes(indexes: Mapping[str, str]) -> None:
    """Build indexes while their tables are read and written, and replace those whose build was interrupted.

    The transaction of the migration is committed first. If a build fails, the migration is run again
    from its beginning, so all its steps must be repeatable.

    Args:
        indexes: the table and the columns of each index, by its name.
    """
    with op.get_context().autocommit_block():
        # A build waits for the transactions that were open when it began, but nothing waits for the build.
        op.execute("SET lock_timeout = 0")
        for name, columns in indexes.items():
            if not context.is_offline_mode() and op.get_bind().scalar(_IS_INVALID, {"name": name}):
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {columns}")
        op.execute("RESET lock_timeout")
