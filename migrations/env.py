"""The environment of each Alembic command: it connects to DATABASE_URL and runs the migrations there.

Two deployments never migrate at the same time: the second one waits for an advisory lock, and then has
nothing left to do.

A migration is compatible with the previous release, whose processes are still running: it neither blocks them
nor drops anything that they use.
"""

import asyncio
import os
import sys
from logging import getLogger
from logging.config import fileConfig
from pathlib import Path

from alembic import context
from dotenv import load_dotenv
from sqlalchemy import URL, Connection, make_url, pool, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import SchemaItem

from migrations.indexes import FORMER_INDEXES
from shared.db.tables import Base

_ROOT = Path(__file__).parent.parent
_DRIVER = "postgresql+asyncpg"
_CONNECT_TIMEOUT = 5
"""Seconds."""

# A statement that waits for a table in use makes all later statements on that table wait as well. A migration
# therefore fails instead, and can be run again when the table is free.
_LOCK_TIMEOUT = "5s"
_IN_USE = {"55P03", "40P01"}
"""The SQLSTATEs of a lock that is not available, and of a deadlock with another transaction."""

_ADVISORY_LOCK = 0x6D696772617465
"""An arbitrary number that nothing else in the database locks."""

_POLL_SECONDS = 0.5

_log = getLogger("alembic.env")


def database_url() -> URL:
    """Return the URL of the database to migrate, or exit with one line if it is missing or invalid."""
    load_dotenv(_ROOT / ".env")
    value = os.environ.get("DATABASE_URL", "").strip()
    if not value:
        sys.exit("migrate: DATABASE_URL is not set; see .env.example")
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        sys.exit(f"migrate: DATABASE_URL is not of the form {_DRIVER}://user:password@host:port/database")
    if url.drivername != _DRIVER:
        sys.exit(f"migrate: DATABASE_URL begins with {url.drivername}://; it must begin with {_DRIVER}://")
    return url


def sql_debug() -> bool:
    return os.environ.get("SQL_DEBUG", "").strip().lower() in {"1", "true", "yes", "on"}


def migrate_offline() -> None:
    """Print the SQL instead of running it (`alembic upgrade head --sql`)."""
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_online() -> None:
    url = database_url()
    settings = {"lock_timeout": _LOCK_TIMEOUT}
    engine = create_async_engine(
        url,
        poolclass=pool.NullPool,
        echo=sql_debug(),
        connect_args={"timeout": _CONNECT_TIMEOUT, "server_settings": settings},
    )
    connection = await connect(engine)
    try:
        await acquire_lock(connection)
        await connection.run_sync(migrate)
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) not in _IN_USE:
            raise
        sys.exit("migrate: a table was in use; try again")
    finally:
        await connection.close()


async def connect(engine: AsyncEngine) -> AsyncConnection:
    """Connect, or exit with one line that names the server but not the password."""
    try:
        return await engine.connect()
    except (OSError, TimeoutError, DBAPIError) as exc:
        reason = exc.orig if isinstance(exc, DBAPIError) else exc
        server = f"{engine.url.host or 'localhost'}:{engine.url.port or 5432}"
        sys.exit(f"migrate: cannot connect to PostgreSQL at {server}: {reason or type(exc).__name__}")


async def acquire_lock(connection: AsyncConnection) -> None:
    """Take the advisory lock of all migrations, which closing the connection releases.

    The lock is polled, because building an index concurrently waits for all running statements, and would
    never end if one of them waited for the lock.
    """
    acquire, is_waiting = text("SELECT pg_try_advisory_lock(:key)"), False
    while not await connection.scalar(acquire, {"key": _ADVISORY_LOCK}):
        await connection.rollback()
        if not is_waiting:
            _log.info("waiting for another migration to finish")
        is_waiting = True
        await asyncio.sleep(_POLL_SECONDS)
    await connection.commit()


def is_compared(_object: SchemaItem, name: str | None, kind: str, *_: object) -> bool:
    return not (kind == "index" and name in FORMER_INDEXES)


def migrate(connection: Connection) -> None:
    # With one transaction for all, a table that the first migration changes could not be read until the last
    # one is done.
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        include_object=is_compared,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    migrate_offline()
else:
    asyncio.run(migrate_online())
