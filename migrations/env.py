"""What Alembic runs for each of its commands: connects to DATABASE_URL and lets it work there.

Two deployments never migrate at once: whoever comes second waits for an advisory lock, and then finds the
work done. A migration gives up rather than queue for a table that is in use, since everybody else would
queue behind it.
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
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.db.tables import Base, TransactionId

_ROOT = Path(__file__).parent.parent
_DRIVER = "postgresql+asyncpg"
_CONNECT_TIMEOUT = 5
"""Seconds."""

_LOCK_TIMEOUT = "5s"
_LOCK_NOT_AVAILABLE = "55P03"
_ADVISORY_LOCK = 0x6D696772617465
"""Any number will do that nothing else in the database locks."""

_log = getLogger("alembic.env")


def database_url() -> URL:
    """The database to migrate; ends the program with one line when it is not said, or not clear."""
    load_dotenv(_ROOT / ".env")
    value = os.environ.get("DATABASE_URL", "").strip()
    if not value:
        sys.exit("migrate: DATABASE_URL is not set; .env.example shows how")
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        sys.exit(f"migrate: DATABASE_URL is not of the form {_DRIVER}://user:password@host:port/database")
    if url.drivername != _DRIVER:
        sys.exit(f"migrate: DATABASE_URL begins with {url.drivername}://; {_DRIVER}:// is what works here")
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
    engine = create_async_engine(
        url, poolclass=pool.NullPool, echo=sql_debug(), connect_args={"timeout": _CONNECT_TIMEOUT}
    )
    connection = await connect(engine)
    try:
        await lock_out_others(connection)
        await connection.run_sync(migrate)
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        sys.exit(f"migrate: a table was in use for {_LOCK_TIMEOUT}; nothing was changed, so just try again")
    finally:
        await connection.close()


async def connect(engine: AsyncEngine) -> AsyncConnection:
    """Connect, or end the program with one line that names the server and never the password."""
    try:
        return await engine.connect()
    except (OSError, TimeoutError, DBAPIError) as exc:
        reason = exc.orig if isinstance(exc, DBAPIError) else exc
        server = f"{engine.url.host or 'localhost'}:{engine.url.port or 5432}"
        sys.exit(f"migrate: cannot connect to PostgreSQL at {server}: {reason or type(exc).__name__}")


async def lock_out_others(connection: AsyncConnection) -> None:
    """Take the lock that every migration takes; closing the connection releases it."""
    key = {"key": _ADVISORY_LOCK}
    if not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key):
        _log.info("another migration is running; waiting for it")
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
    await connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
    await connection.commit()


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


# What Alembic reads back from the database is compared with the models, so it has to know our type.
ischema_names["xid8"] = TransactionId

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    migrate_offline()
else:
    asyncio.run(migrate_online())
