"""The events as they are sent to endpoints."""

from collections.abc import Mapping, Sequence

from shared.db.reader import Reader
from shared.ids import EventId
from shared.resources.events import Renderer
from shared.webhook_endpoints import Delivery

_NO_SEQUENCE = 0
"""The sequence of an event that is not in the stream, such as a test."""


async def render(reader: Reader, deliveries: Sequence[Delivery]) -> Mapping[EventId, bytes]:
    """Return the bodies of events, except those whose object was deleted.

    Raises:
        DatabaseUnavailableError: PostgreSQL does not respond.
    """
    in_stream = {each.sequence: each.notification for each in deliveries if each.sequence is not None}
    groups = [in_stream] if in_stream else []
    groups += [{_NO_SEQUENCE: each.notification} for each in deliveries if each.sequence is None]
    renderer = Renderer(reader)
    events = [event for group in groups for event in await renderer.render(group)]
    return {EventId(event.id): event.encode() for event in events}
