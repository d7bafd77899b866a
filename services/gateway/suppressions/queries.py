"""Queries for the suppression list in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, exists, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.suppressions.schemas import SuppressionCursor
from shared.channels import Channel
from shared.db import tables
from shared.db.reader import Reader
from shared.suppressions import SuppressionState

_changes = tables.SuppressionChange.__table__


class SuppressionQueries:
    """Reads the suppression list; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def list(
        self, channel: Channel | None, address: str | None, cursor: SuppressionCursor | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return the opt-outs that no later change of the same pair has revoked, most recent first.

        If a pair has two changes at the same moment, the opt-out counts as the later one.
        """
        change, later = _changes.c, _changes.alias("later").c
        statement: Select[Any] = select(
            change.id,
            change.channel,
            change.theirs.label("address"),
            change.ours.label("sender"),
            change.source,
            change.detail,
            change.changed_by.label("by"),
            change.occurred_at.label("since"),
        ).where(
            change.state == SuppressionState.OPTED_OUT.value,
            ~exists().where(later.key == change.key, later.occurred_at > change.occurred_at),
        )
        if channel is not None:
            statement = statement.where(change.channel == channel.value)
        if address is not None:
            statement = statement.where(change.theirs == address)
        if cursor is not None:
            place = tuple_(change.occurred_at, change.id)
            statement = statement.where(place < tuple_(literal(cursor.since), literal(cursor.id)))
        statement = statement.order_by(change.occurred_at.desc(), change.id.desc()).limit(limit)

        async def query(connection: AsyncConnection) -> Sequence[Row[Any]]:
            rows: Sequence[Row[Any]] = (await connection.execute(statement)).all()
            return rows

        return await self._reader.read(query)
