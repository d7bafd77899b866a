"""Queries for the media of inbound messages."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.reader import Reader
from shared.db.tables import Media as MediaTable
from shared.media import Media, latest_of


class MediaQueries:
    """Reads media; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, id_: UUID) -> Media | None:
        """Return a file with its latest status."""

        async def query(connection: AsyncConnection) -> list[Media]:
            rows = await connection.execute(select(MediaTable.__table__).where(MediaTable.id == id_))
            return latest_of(map(dict, rows.mappings()))

        return next(iter(await self._reader.read(query)), None)
