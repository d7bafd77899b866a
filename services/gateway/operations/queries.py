"""Queries for the numbers of messages in PostgreSQL."""

from collections import defaultdict
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.operations.schemas import TrafficResponse, TrafficSeries
from shared.channels import Channel
from shared.db.reader import Reader
from shared.db.tables import Traffic

_MINUTE = timedelta(minutes=1)
_MINUTES = 60


class TrafficQueries:
    """Reads the numbers of messages; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def last_hour(self, now: datetime) -> TrafficResponse:
        current = now.replace(second=0, microsecond=0)
        minutes = [current - number * _MINUTE for number in reversed(range(_MINUTES))]
        statement = select(Traffic.__table__, Traffic.count.label("number")).where(
            Traffic.minute.between(minutes[0], current)
        )

        async def query(connection: AsyncConnection) -> TrafficResponse:
            counts: dict[tuple[str, str, str], dict[datetime, int]] = defaultdict(dict)
            for row in await connection.execute(statement):
                counts[row.channel, row.provider, row.kind][row.minute] = row.number
            series = [
                TrafficSeries(
                    channel=Channel(channel),
                    provider=provider or None,
                    kind=kind,
                    counts=[by_minute.get(minute, 0) for minute in minutes],
                )
                for (channel, provider, kind), by_minute in sorted(counts.items())
            ]
            return TrafficResponse(minutes=minutes, series=series)

        return await self._reader.read(query)
