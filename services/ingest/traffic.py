"""Counts messages by minute, channel, provider and kind, from the notifications about them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_PREFIX = "message."
_RECEIVED = "message.received"

_COUNT = text("SELECT count_traffic(CAST(:counts AS jsonb))")
_PROVIDERS = text("SELECT id, provider FROM messages WHERE id = ANY(CAST(:ids AS uuid[]))")


class _Kind(NamedTuple):
    minute: str
    channel: str
    provider: str
    kind: str


async def count_traffic(
    connection: AsyncConnection, notifications: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """Count the notifications about messages, in the transaction that takes them from the outbox.

    Args:
        connection: the connection of the transaction.
        notifications: the type and the content of each.
    """
    contents = [(type_, content) for type_, content in notifications if type_.startswith(_PREFIX)]
    if not contents:
        return
    providers = await _providers_of(
        connection, [content["message_id"] for type_, content in contents if type_ == _RECEIVED]
    )
    counts = Counter(_kind_of(type_, content, providers) for type_, content in contents)
    rows = [{**kind._asdict(), "count": count} for kind, count in sorted(counts.items())]
    await connection.execute(_COUNT, {"counts": orjson.dumps(rows).decode()})


async def _providers_of(connection: AsyncConnection, ids: Sequence[str]) -> Mapping[UUID, str]:
    """Return the providers that have delivered messages to us, by the ids of the messages."""
    if not ids:
        return {}
    found = await connection.execute(_PROVIDERS, {"ids": ids})
    return {row.id: row.provider for row in found}


def _kind_of(type_: str, content: Mapping[str, Any], providers: Mapping[UUID, str]) -> _Kind:
    minute = datetime.fromisoformat(content["occurred_at"]).replace(second=0, microsecond=0)
    report = content.get("report") or {}
    provider = report.get("provider") or (report.get("error") or {}).get("provider")
    if type_ == _RECEIVED:
        provider = providers.get(UUID(content["message_id"]))
    return _Kind(minute.isoformat(), content["channel"], provider or "", type_.removeprefix(_PREFIX))
