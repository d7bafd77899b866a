"""Queries for dead letters in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.dead_letters.schemas import (
    BulkCursor,
    DeadLetterCursor,
    DeadLetterFilter,
    DeadLetterWithHistory,
)
from services.gateway.messages.queries import history
from shared.db.keyset import Filter, Keyset, Place, Rows, read_page
from shared.db.reader import Reader
from shared.db.tables import DeadLetter
from shared.resources.dead_letters import DeadLetterState, dead_letter_fields, select_dead_letters

_dead_letter = DeadLetter.__table__
_WITHOUT_BODY = _dead_letter.c.content.op("-")("payload_zlib")

_ORDER = ("created_at", "id")


class DeadLetterQueries:
    """Reads dead letters; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, id_: UUID) -> DeadLetterWithHistory | None:
        async def query(connection: AsyncConnection) -> DeadLetterWithHistory | None:
            row = (
                await connection.execute(select_dead_letters().where(_dead_letter.c.id == id_))
            ).one_or_none()
            if row is None:
                return None
            entries = await history(connection, row.message_id) if row.message_id else []
            return DeadLetterWithHistory.model_validate({**dead_letter_fields(row), "history": entries})

        return await self._reader.read(query)

    async def list(self, selected: DeadLetterFilter, cursor: DeadLetterCursor | None, limit: int) -> Rows:
        """Return dead letters, newest first, without the long bodies of webhooks."""
        keyset = Keyset(_ranges(selected), _ORDER, _place(cursor))
        return await self._read(selected, keyset, limit, select_dead_letters(_WITHOUT_BODY))

    async def open(self, selected: DeadLetterFilter, cursor: BulkCursor, limit: int) -> Rows:
        """Return open dead letters, oldest first."""
        selected = replace(selected, state=DeadLetterState.OPEN)
        ranges = [rows.where(_dead_letter.c.created_at <= cursor.until) for rows in _ranges(selected)]
        after = _place(cursor.after)
        keyset = Keyset(ranges, _ORDER, after, is_ascending=True)
        return await self._read(selected, keyset, limit, select_dead_letters())

    async def _read(
        self, selected: DeadLetterFilter, keyset: Keyset, limit: int, details: Select[Any]
    ) -> Rows:
        key = _dead_letter.c.id

        async def query(connection: AsyncConnection) -> Rows:
            return await read_page(connection, keyset, details, key, limit, _filter(selected))

        return await self._reader.read(query)


def _ranges(selected: DeadLetterFilter) -> Sequence[Select[Any]]:
    """Return the dead letters of a message, or those of each state, optionally limited to one reason."""
    rows = select(_dead_letter.c.created_at, _dead_letter.c.id)
    if selected.reason is not None:
        rows = rows.where(_dead_letter.c.reason == selected.reason)
    if selected.message_id is not None:
        rows = rows.where(_dead_letter.c.message_id == selected.message_id)
    return [
        rows.where(_dead_letter.c.state == state.value)
        for state in DeadLetterState
        if selected.state in (None, state)
    ]


def _filter(selected: DeadLetterFilter) -> Filter:
    """Return the conditions that the ranges do not cover."""
    columns: list[tuple[ColumnElement[Any], StrEnum | None]] = [
        (_dead_letter.c.direction, selected.direction),
        (_dead_letter.c.channel, selected.channel),
    ]
    conditions = [column == value.value for column, value in columns if value is not None]
    return Filter(_dead_letter, _dead_letter.c.id, conditions)


def _place(cursor: DeadLetterCursor | None) -> Place | None:
    return (cursor.created_at, cursor.id) if cursor else None
