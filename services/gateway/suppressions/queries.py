"""Queries for the suppression list in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.suppressions.schemas import SuppressionCursor
from shared.channels import Channel
from shared.db import tables
from shared.db.keyset import Keyset, read_page
from shared.db.reader import Reader
from shared.suppressions import SuppressionState

_changes = tables.SuppressionChange.__table__
_current = tables.Suppression.__table__.c

# As a literal, since the indexes contain only these rows.
_OPTED_OUT = literal(SuppressionState.OPTED_OUT.value, literal_execute=True)


class SuppressionQueries:
    """Reads the suppression list; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def list(
        self, channel: Channel | None, address: str | None, cursor: SuppressionCursor | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return the opt-outs that apply, most recent first."""
        change = _changes.c
        details = select(
            change.id,
            change.channel,
            change.theirs.label("address"),
            change.ours.label("sender"),
            change.source,
            change.detail,
            change.changed_by.label("by"),
            change.occurred_at.label("since"),
        )
        after = (cursor.since, cursor.id) if cursor else None
        keyset = Keyset(_ranges(channel, address), ("since", "id"), after)

        async def query(connection: AsyncConnection) -> Sequence[Row[Any]]:
            return (await read_page(connection, keyset, details, change.id, limit)).rows

        return await self._reader.read(query)


def _ranges(channel: Channel | None, address: str | None) -> Sequence[Select[Any]]:
    """Return the opt-outs of an address, or of each channel."""
    opt_outs = select(_current.change_id.label("id"), _current.occurred_at.label("since")).where(
        _current.state == _OPTED_OUT
    )
    of_channels = [
        opt_outs.where(_current.channel == each.value) for each in Channel if channel in (None, each)
    ]
    if address is None:
        return of_channels
    return [rows.where(_current.theirs == address) for rows in of_channels]
