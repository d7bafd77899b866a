"""Queries for dead letters in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    exists,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.dead_letters.schemas import (
    BulkCursor,
    DeadLetterCursor,
    DeadLetterFilter,
    DeadLetterResponse,
    DeadLetterState,
    DeadLetterWithHistory,
    ResolutionResponse,
)
from services.gateway.messages.queries import history
from shared.db.reader import Reader
from shared.db.tables import DeadLetter, DeadLetterResolution, MessageEvent
from shared.db.views import message_history
from shared.dead_letters import Resolution
from shared.status import Status

_dead_letter = DeadLetter.__table__
_resolution = DeadLetterResolution.__table__.alias("resolution")

_PLACE = (_dead_letter.c.created_at, _dead_letter.c.id)


def _was(resolution: Resolution) -> ColumnElement[bool]:
    return exists().where(
        DeadLetterResolution.dead_letter_id == _dead_letter.c.id,
        DeadLetterResolution.resolution == resolution.value,
    )


_HAS_LATER_GENERATION = exists().where(
    MessageEvent.message_id == _dead_letter.c.message_id, MessageEvent.generation > _dead_letter.c.generation
)
# A dead letter that was both replayed and discarded, perhaps with the NATS CLI, counts as replayed.
_STATE = case(
    (or_(_was(Resolution.REPLAYED), _HAS_LATER_GENERATION), DeadLetterState.REPLAYED.value),
    (_was(Resolution.DISCARDED), DeadLetterState.DISCARDED.value),
    else_=DeadLetterState.OPEN.value,
)


_IS_SENT = exists().where(
    message_history.c.message_id == _dead_letter.c.message_id,
    message_history.c.status.in_([Status.SENT.value, Status.DELIVERED.value]),
)


class DeadLetterQueries:
    """Reads dead letters; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, id_: UUID) -> DeadLetterWithHistory | None:
        async def query(connection: AsyncConnection) -> DeadLetterWithHistory | None:
            row = (await connection.execute(_select().where(_dead_letter.c.id == id_))).one_or_none()
            if row is None:
                return None
            entries = await history(connection, row.message_id) if row.message_id else []
            return DeadLetterWithHistory.model_validate({**_fields(row), "history": entries})

        return await self._reader.read(query)

    async def list(
        self, selected: DeadLetterFilter, cursor: DeadLetterCursor | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return dead letters, newest first, without the long bodies of webhooks."""
        statement = _select(_dead_letter.c.content.op("-")("payload_zlib")).where(*_conditions(selected))
        if cursor is not None:
            statement = statement.where(tuple_(*_PLACE) < _place_of(cursor))
        return await self._all(statement.order_by(*(column.desc() for column in _PLACE)).limit(limit))

    async def open(self, selected: DeadLetterFilter, cursor: BulkCursor, limit: int) -> Sequence[Row[Any]]:
        """Return open dead letters, oldest first."""
        conditions = _conditions(replace(selected, state=DeadLetterState.OPEN))
        statement = _select().where(*conditions, _dead_letter.c.created_at <= cursor.until)
        if cursor.after is not None:
            statement = statement.where(tuple_(*_PLACE) > _place_of(cursor.after))
        return await self._all(statement.order_by(*_PLACE).limit(limit))

    async def _all(self, statement: Any) -> Sequence[Row[Any]]:  # noqa: ANN401 - a SELECT
        async def query(connection: AsyncConnection) -> Sequence[Row[Any]]:
            rows: Sequence[Row[Any]] = (await connection.execute(statement)).all()
            return rows

        return await self._reader.read(query)


def show_dead_letter(row: Row[Any]) -> DeadLetterResponse:
    return DeadLetterResponse.model_validate(_fields(row))


def _fields(row: Row[Any]) -> dict[str, Any]:
    resolution = row.resolved_by and ResolutionResponse(
        by=row.resolved_by, at=row.resolved_at, reason=row.reason
    )
    return {
        **row.content,
        "state": row.state,
        "is_sent": row.is_sent,
        "resolution": resolution,
        "created_at": row.created_at,
    }


def _conditions(selected: DeadLetterFilter) -> list[ColumnElement[bool]]:
    columns: list[tuple[ColumnElement[Any], object]] = [
        (_dead_letter.c.direction, selected.direction and selected.direction.value),
        (_dead_letter.c.channel, selected.channel and selected.channel.value),
        (_dead_letter.c.reason, selected.reason),
        (_dead_letter.c.message_id, selected.message_id),
        (_STATE, selected.state and selected.state.value),
    ]
    return [column == value for column, value in columns if value is not None]


def _place_of(cursor: DeadLetterCursor) -> ColumnElement[Any]:
    return tuple_(literal(cursor.created_at), literal(cursor.id))


def _select(content: ColumnElement[Any] = _dead_letter.c.content) -> Select[Any]:
    deciding = and_(_resolution.c.dead_letter_id == _dead_letter.c.id, _resolution.c.resolution == _STATE)
    return select(
        _dead_letter.c.id,
        content.label("content"),
        _dead_letter.c.message_id,
        _dead_letter.c.created_at,
        _STATE.label("state"),
        _IS_SENT.label("is_sent"),
        _resolution.c.resolved_by,
        _resolution.c.resolved_at,
        _resolution.c.reason,
    ).select_from(_dead_letter.outerjoin(_resolution, deciding))
