"""Determines how long an endpoint has only failed, from the attempts in PostgreSQL."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.reader import Reader
from shared.webhook_endpoints import WebhookEndpoint

_FAILING_SINCE = text("""
    SELECT min(started_at) FROM webhook_attempts
    WHERE endpoint_id = :endpoint AND NOT succeeded AND started_at > greatest(
        CAST(:enabled_at AS timestamptz),
        (SELECT max(started_at) FROM webhook_attempts WHERE endpoint_id = :endpoint AND succeeded)
    )
""")


class Failures:
    """Reads failures; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def since(self, endpoint: WebhookEndpoint) -> datetime | None:
        """Return the time of the first failure that no success has followed, or None."""
        parameters = {"endpoint": endpoint.id, "enabled_at": endpoint.enabled_at}

        async def query(connection: AsyncConnection) -> datetime | None:
            since: datetime | None = await connection.scalar(_FAILING_SINCE, parameters)
            return since

        return await self._reader.read(query)
