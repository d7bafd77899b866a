"""Queries for dead letters in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    literal,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.dead_letters.schemas import (
    BulkCursor,
    DeadLetterCursor,
    DeadLetterFilter,
    DeadLetterWithHistory,
)
from services.gateway.messages.queries import history
from shared.db.reader import Reader
from shared.db.tables import DeadLetter, DeadLetterResolution
from shared.resources.dead_letters import (
    DEAD_LETTER_STATE,
    DeadLetterState,
    dead_letter_fields,
    select_dead_letters,
)

_dead_letter = DeadLetter.__table__
_resolution = DeadLetterResolution.__table__.alias("resolution")

_PLACE = (_dead_letter.c.created_at, _dead_letter.c.id)


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

    async def list(
        self, selected: DeadLetterFilter, cursor: DeadLetterCursor | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return dead letters, newest first."""
        statement = select_dead_letters().where(*_conditions(selected))
        if cursor is not None:
            statement = statement.where(tuple_(*_PLACE) < _place_of(cursor))
        return await self._all(statement.order_by(*(column.desc() for column in _PLACE)).limit(limit))

    async def open(self, selected: DeadLetterFilter, cursor: BulkCursor, limit: int) -> Sequence[Row[Any]]:
        """Return open dead letters, oldest first."""
        conditions = _conditions(replace(selected, state=DeadLetterState.OPEN))
        statement = select_dead_letters().where(*conditions, _dead_letter.c.created_at <= cursor.until)
        if cursor.after is not None:
            statement = statement.where(tuple_(*_PLACE) > _place_of(cursor.after))
        return await self._all(statement.order_by(*_PLACE).limit(limit))

    async def _all(self, statement: Any) -> Sequence[Row[Any]]:  # noqa: ANN401 - a SELECT
        async def query(connection: AsyncConnection) -> Sequence[Row[Any]]:
            rows: Sequence[Row[Any]] = (await connection.execute(statement)).all()
            return rows

        return await self._reader.read(query)


def _conditions(selected: DeadLetterFilter) -> list[ColumnElement[bool]]:
    columns: list[tuple[ColumnElement[Any], object]] = [
        (_dead_letter.c.direction, selected.direction and selected.direction.value),
        (_dead_letter.c.channel, selected.channel and selected.channel.value),
        (_dead_letter.c.reason, selected.reason),
        (_dead_letter.c.message_id, selected.message_id),
        (DEAD_LETTER_STATE, selected.state and selected.state.value),
    ]
    return [column == value for column, value in columns if value is not None]


def _place_of(cursor: DeadLetterCursor) -> ColumnElement[Any]:
    return tuple_(literal(cursor.created_at), literal(cursor.id))
