"""Deletes recorded attempts to deliver events to webhook endpoints once they are thirty days old."""

import asyncio

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import supervision

_log = structlog.get_logger()

_BATCH = 1_000
"""Rows that are deleted in one transaction."""

_INTERVAL = 600.0
"""Seconds between deletions."""

_DELETE = text("SELECT delete_old_webhook_attempts(:maximum)")
_UNAVAILABLE = (SQLAlchemyError, OSError, TimeoutError)


async def keep_deleting_old_attempts(engine: AsyncEngine) -> None:
    """Delete old attempts every ten minutes until the task is cancelled."""
    while True:
        supervision.beat()
        try:
            deleted = await supervision.patiently(delete_old_attempts(engine))
        except _UNAVAILABLE as exc:
            _log.warning("old_webhook_attempts_not_deleted", error=str(exc).partition("\n")[0])
        else:
            if deleted:
                _log.info("old_webhook_attempts_deleted", count=deleted)
        await supervision.patiently(asyncio.sleep(_INTERVAL))


async def delete_old_attempts(engine: AsyncEngine, batch: int = _BATCH) -> int:
    """Delete all attempts that are old, and return their number.

    Args:
        engine: connects to the database.
        batch: the number of rows that are deleted in one transaction.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError, TimeoutError: the database is not available.
    """
    count, deleted = 0, batch
    while deleted == batch:
        async with engine.begin() as connection:
            deleted = await connection.scalar(_DELETE, {"maximum": batch}) or 0
        count += deleted
    return count
