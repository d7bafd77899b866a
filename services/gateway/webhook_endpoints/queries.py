"""Queries for the attempts to deliver events to webhook endpoints."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.webhook_endpoints.schemas import AttemptCursor, AttemptQuery, WebhookAttemptResponse
from shared.db.reader import Reader
from shared.db.tables import WebhookAttempt

_table = WebhookAttempt.__table__
_attempt = _table.c


class AttemptQueries:
    """Reads attempts; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def list(
        self, endpoint: UUID, selected: AttemptQuery, cursor: AttemptCursor | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return attempts, newest first."""
        statement: Select[Any] = select(_table).where(_attempt.endpoint_id == endpoint)
        if selected.succeeded is not None:
            statement = statement.where(_attempt.succeeded == selected.succeeded)
        if selected.event_id is not None:
            statement = statement.where(_attempt.event_id == selected.event_id)
        if cursor is not None:
            place = tuple_(_attempt.started_at, _attempt.id)
            statement = statement.where(place < tuple_(literal(cursor.started_at), literal(cursor.id)))
        return await self._all(
            statement.order_by(_attempt.started_at.desc(), _attempt.id.desc()).limit(limit)
        )

    async def get(self, endpoint: UUID, id_: UUID) -> Row[Any] | None:
        conditions = (_attempt.id == id_, _attempt.endpoint_id == endpoint)
        return next(iter(await self._all(select(_table).where(*conditions))), None)

    async def received(self, endpoint: UUID, events: Collection[UUID]) -> set[UUID]:
        """Return the events among these that the endpoint has received."""
        rows = await self._all(
            select(_attempt.event_id).where(
                _attempt.endpoint_id == endpoint, _attempt.event_id.in_(events), _attempt.succeeded
            )
        )
        return {row.event_id for row in rows}

    async def _all(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        async def query(connection: AsyncConnection) -> Sequence[Row[Any]]:
            rows: Sequence[Row[Any]] = (await connection.execute(statement)).all()
            return rows

        return await self._reader.read(query)


def show_attempt(row: Row[Any]) -> WebhookAttemptResponse:
    return WebhookAttemptResponse.model_validate(row._mapping)  # noqa: SLF001 - public despite its name
