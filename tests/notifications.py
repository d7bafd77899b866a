"""The notifications of stored events, without the service that publishes them."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.outbox import Outbox
from services.ingest.projection import project
from services.ingest.repository import Repository
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import NOTIFICATION_SUBJECTS, Stream
from shared.events import Event
from shared.notifications import Notification


async def store(engine: AsyncEngine, events: Iterable[Event[Any]]) -> None:
    """Store each event in a transaction of its own."""
    for event in events:
        await Repository(engine).store([project(event)])


async def publish_stored(engine: AsyncEngine, publisher: Publisher) -> int:
    """Publish the notifications that are in the outbox, and return their number."""
    outbox, count = Outbox(engine, publisher), 0
    while published := await outbox.publish_some():
        count += published
    return count


async def notify(engine: AsyncEngine, publisher: Publisher, events: Iterable[Event[Any]]) -> None:
    await store(engine, events)
    await publish_stored(engine, publisher)


async def published(bus: Bus) -> dict[int, Notification]:
    """Return the notifications in the stream by their sequence."""
    answer = await bus.next_messages(Stream.NOTIFICATIONS, 1, count=10_000, subject=NOTIFICATION_SUBJECTS)
    return {each.sequence: Notification.model_validate_json(each.payload) for each in answer.messages}
