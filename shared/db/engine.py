"""The connection to PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.settings import DatabaseSettings

_DISPOSE_SECONDS = 1


def make_engine(settings: DatabaseSettings, *, pool_size: int, application: str) -> AsyncEngine:
    """Create an engine that connects when it is first used, and notices a server that hangs.

    Args:
        settings: the location of the server.
        pool_size: the number of connections that are kept, and never exceeded.
        application: the name that PostgreSQL shows in `pg_stat_activity`.
    """
    return create_async_engine(
        settings.database_url,
        echo=settings.sql_debug,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_recycle=1_800,
        connect_args={
            "timeout": 3,  # seconds to connect
            "command_timeout": 30,  # seconds for a statement, since one on a server that hangs never ends
            "server_settings": {"application_name": application, "timezone": "UTC"},
        },
    )


@asynccontextmanager
async def connecting(
    settings: DatabaseSettings, *, pool_size: int, application: str
) -> AsyncIterator[AsyncEngine]:
    """Create an engine for the block, and dispose of it within a second even if the server hangs."""
    engine = make_engine(settings, pool_size=pool_size, application=application)
    try:
        yield engine
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISPOSE_SECONDS):
                await engine.dispose()
