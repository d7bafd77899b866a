"""The events that a reader receives who is behind, with a stub of their stream."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.gateway.events.feed import EventLog, Feed
from shared import supervision
from shared.bus.streams import Bounds
from shared.ids import EventId
from shared.notifications import Notification, NotificationFilter, NotificationType
from shared.resources.events import Event

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Log(EventLog):
    """A stream with two events.

    Args:
        replicas: the newest sequence of the replica that answers each request of a reader.
    """

    def __init__(self, *replicas: int) -> None:
        self._replicas = [*replicas]

    async def bounds(self) -> Bounds:
        return Bounds(first=1, last=2)

    async def read(
        self,
        after: int,
        selected: NotificationFilter,  # noqa: ARG002
        limit: int,  # noqa: ARG002
    ) -> tuple[list[tuple[Notification, Event]], int, bool]:
        if after >= 2:  # the feed itself, which waits for the next event
            return [], after, False
        newest = self._replicas.pop(0)
        found = [_event(sequence) for sequence in range(after + 1, newest + 1)]
        return found, max(after, newest), False


def _event(sequence: int) -> tuple[Notification, Event]:
    id_ = EventId(UUID(int=sequence))
    notification = Notification(id=id_, type=NotificationType.MESSAGE_SENT, occurred_at=NOW)
    return notification, Event(id=id_, type=notification.type, timestamp=NOW, sequence=sequence, data=None)


@pytest.mark.parametrize("replicas", [(2,), (1, 2), (0, 1, 1, 2)])
async def test_a_replica_that_lags_behind_hides_no_event(replicas: tuple[int, ...]) -> None:
    feed = Feed(Log(*replicas), lambda: False)
    received: list[int] = []
    async with supervision.running("feed", feed.run()):
        with feed.joined():
            after = 0
            while after < 2:
                events, after = await feed.next(after, NotificationFilter())
                received += [event.sequence for event in events]
    assert received == [1, 2]
