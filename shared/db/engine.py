"""The connection to PostgreSQL."""

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.settings import DatabaseSettings


def make_engine(settings: DatabaseSettings, *, pool_size: int, application: str) -> AsyncEngine:
    """Make an engine that connects when it is first used and notices a server that hangs.

    Args:
        settings: where the server is.
        pool_size: connections kept, and never exceeded.
        application: name that PostgreSQL shows in `pg_stat_activity`.
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
            "command_timeout": 30,  # seconds a statement may take; a server that hangs never ends one
            "server_settings": {"application_name": application, "timezone": "UTC"},
        },
    )
