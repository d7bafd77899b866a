"""The outbox: publishes the notifications that triggers have inserted into `notification_outbox`.

One process publishes at a time, in the order of the rows. It deletes the rows in a transaction that it
commits once NATS has stored the notifications, so that those of a process that dies are published by another.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.traffic import count_traffic
from shared import supervision
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, notification_subject
from shared.channels import Channel
from shared.errors import BusUnavailableError
from shared.ids import notification_id
from shared.observability.metrics import NOTIFICATIONS, OUTBOX_ROWS

_log = structlog.get_logger()

_BATCH = 200
"""The number of notifications that the publisher stores as one atomic batch, and therefore in order."""

_POLL_SECONDS = 3.0
"""How often the outbox is read although this process has stored nothing."""

_LINGER = 0.1
"""Seconds between two batches, unless the first was full. Under load, this makes batches fewer and larger: a
batch costs NATS as much as a hundred notifications in it."""

_ERROR_PAUSE = 1.0

_TAKE = text("SELECT type, cause, content::text FROM take_notifications(:maximum) ORDER BY id")
_COUNT = text("SELECT count(*) FROM notification_outbox")

_UNAVAILABLE = (SQLAlchemyError, OSError, TimeoutError, BusUnavailableError)


class OutboxRow(NamedTuple):
    """A row of `notification_outbox`."""

    type: str
    cause: str
    content: dict[str, Any]


class Outbox:
    """Publishes notifications until its task is cancelled."""

    def __init__(self, engine: AsyncEngine, publisher: Publisher) -> None:
        self._engine = engine
        self._publisher = publisher
        self._stored = asyncio.Event()

    def wake(self) -> None:
        """Publish the rows that were just stored, instead of waiting for the next poll."""
        self._stored.set()

    async def run(self) -> None:
        while True:
            supervision.beat()
            try:
                await supervision.patiently(self._publish_all())
            except _UNAVAILABLE as exc:
                _log.warning("notifications_not_published", error=str(exc).partition("\n")[0])
                await supervision.patiently(self._count())
                await asyncio.sleep(_ERROR_PAUSE)
            else:
                OUTBOX_ROWS.set(0)
                await self._until_woken()

    async def _until_woken(self) -> None:
        """Wait until something is stored, and at least for `_LINGER`."""
        now = asyncio.get_running_loop().time
        earliest = now() + _LINGER
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._stored.wait()
        await asyncio.sleep(earliest - now())

    async def _count(self) -> None:
        with suppress(*_UNAVAILABLE):
            async with self._engine.connect() as connection:
                OUTBOX_ROWS.set(await connection.scalar(_COUNT) or 0)

    async def _publish_all(self) -> None:
        self._stored.clear()
        while await self.publish_some() == _BATCH:
            supervision.beat()

    async def publish_some(self) -> int:
        """Publish the oldest notifications, and return their number.

        Raises:
            BusUnavailableError: NATS has not stored all of them.
            sqlalchemy.exc.SQLAlchemyError, OSError, TimeoutError: the database is not available.
        """
        async with self._engine.begin() as connection:
            rows = [
                OutboxRow(type_, cause, orjson.loads(content))
                for type_, cause, content in await connection.execute(_TAKE, {"maximum": _BATCH})
            ]
            if rows:
                await count_traffic(connection, [(row.type, row.content) for row in rows])
                await self._publish(rows)
        return len(rows)

    async def _publish(self, rows: Sequence[OutboxRow]) -> None:
        await self._publisher.publish_batch(Stream.NOTIFICATIONS, [*map(outgoing, rows)])
        for type_, count in Counter(row.type for row in rows).items():
            NOTIFICATIONS.labels(type_).inc(count)


def outgoing(row: OutboxRow) -> Outgoing:
    """Return the notification of a row as it is published."""
    id_ = notification_id(row.type, row.cause)
    content = {"id": id_, "type": row.type, **row.content}
    if spelling := content.pop("our_spelling", None):
        content["our_address"] = _key_of(content["channel"], spelling)
    return Outgoing(notification_subject(row.type), id_, orjson.dumps(content))


@lru_cache(maxsize=16_384)
def _key_of(channel: str, spelling: str) -> str:
    """Return the key of our address, whose spelling in the database is a normalised one."""
    address = Channel(channel).read_address(spelling, default_region="US")
    return address.key if address else spelling
