"""Publishing events as the services do."""

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid5

from shared.bus.client import connect
from shared.bus.publisher import Outgoing, publishing
from shared.bus.topology import (
    Stream,
    dead_letter_resolved_subject,
    dead_letter_subject,
    event_subject,
    inbound_message_subject,
    inbound_receipt_subject,
    media_subject,
    outbound_subject,
    suppression_subject,
)
from shared.channels import Channel
from shared.dead_letters import DeadLetter, DeadLetterResolution
from shared.events import Event
from shared.ids import EventId
from shared.media import MediaReport
from shared.message import DeliveryRequest, IncomingMessage, IncomingReceipt, StatusReport
from shared.suppressions import SuppressionChange


def place_of(event: Event[Any]) -> tuple[Stream, str]:  # noqa: PLR0911 - one case for each kind of data
    """Return the stream and the subject to which an event is published."""
    match event.data:
        case DeliveryRequest(message=message):
            return Stream.OUTBOUND, outbound_subject(message.channel, message.conversation_key)
        case IncomingMessage(message=message):
            return Stream.INBOUND, inbound_message_subject(message.channel, message.conversation_key)
        case IncomingReceipt(channel=channel, provider=provider):
            return Stream.INBOUND, inbound_receipt_subject(channel, provider)
        case StatusReport(channel=channel, status=status):
            return Stream.EVENTS, event_subject(channel, status)
        case DeadLetter(direction=direction, channel=channel):
            return Stream.DEADLETTER, dead_letter_subject(direction, channel)
        case DeadLetterResolution():
            return Stream.DEADLETTER, dead_letter_resolved_subject(Channel.SMS)
        case MediaReport(channel=channel):
            return Stream.EVENTS, media_subject(channel)
        case SuppressionChange(channel=channel, key=key):
            return Stream.SUPPRESSIONS, suppression_subject(channel, key)
    raise TypeError(f"ingest does not read {event.type}")


async def publish(nats_url: str, events: Iterable[Event[Any]]) -> None:
    await publish_raw(nats_url, [(*place_of(event), event.encode()) for event in events])


async def publish_raw(nats_url: str, places: Iterable[tuple[Stream, str, bytes]]) -> None:
    """Publish payloads, readable or not, each to a stream and a subject."""
    async with connect(nats_url, name="test") as bus, publishing(bus) as publisher:
        await bus.until_connected()
        await asyncio.gather(
            *(
                publisher.publish(stream, Outgoing(subject, _id_of(payload), payload))
                for stream, subject, payload in places
            )
        )


def _id_of(payload: bytes) -> EventId:
    return EventId(uuid5(UUID(int=0), payload.hex()))
