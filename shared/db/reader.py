"""Reading PostgreSQL within a time limit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import DatabaseUnavailableError

_TIME_LIMIT = 2.0
"""Seconds that PostgreSQL has to answer; releasing a connection that hangs may take two more."""

_UNAVAILABLE = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

T = TypeVar("T")


class Reader:
    """Reads from PostgreSQL; its methods raise DatabaseUnavailableError when it does not answer in time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ping(self) -> None:
        """Check that there is a schema to read."""
        await self.read(lambda connection: connection.execute(text("SELECT FROM messages LIMIT 0")))

    async def read(self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Return the result of `query`, which is passed a connection."""
        try:
            async with asyncio.timeout(_TIME_LIMIT):
                try:
                    return await self._connected(query)
                except DBAPIError as exc:
                    if not exc.connection_invalidated:
                        raise
                # The server was restarted since this connection was made; the pool makes another one.
                return await self._connected(query)
        except _UNAVAILABLE as exc:
            raise DatabaseUnavailableError(_reason(exc)) from exc

    async def _connected(self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.connect() as connection:
            return await query(connection)


def _reason(exc: Exception) -> str:
    """Return the reason without the statement and the addresses in it."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    return str(cause) or type(cause).__name__
