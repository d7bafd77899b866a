"""Publishing dead letters: messages that a service cannot process."""

import base64
import zlib
from datetime import datetime
from typing import Any

import structlog

from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, dead_letter_subject
from shared.channels import Channel, Direction
from shared.dead_letters import DeadLetter, Origin
from shared.errors import BadMessageError
from shared.events import dead_letter_created, decode
from shared.ids import dead_letter_id
from shared.message import DeliveryRequest
from shared.observability.metrics import DEAD_LETTERS

_log = structlog.get_logger()

_MAX_COPY = 128 * 1024
"""Bytes of a payload that a dead letter keeps uncompressed: JSON may need six bytes to encode one."""

_MAX_COMPRESSED = 604 * 1024
"""Characters of a compressed payload. The query of a webhook may take most of the rest of a NATS message."""


class DeadLetterPublisher:
    """Publishes dead letters of the service `name`; ingest stores them in the database."""

    def __init__(self, publisher: Publisher, name: str) -> None:
        self._publisher = publisher
        self._source = f"/{name}"

    async def publish(
        self, payload: bytes, error: BadMessageError, origin: Origin, *, at: datetime, line: int = 0
    ) -> None:
        """Dead-letter the message at `origin`; the dead letter is stored when this method returns.

        Args:
            payload: of the message.
            error: what is wrong with it.
            origin: its place in the streams.
            at: when the message, or the advisory about it, was stored. If a replay dead-letters the message
                again, it then publishes the same event.
            line: the number of the line, from 0, if the message has several.

        Raises:
            BusUnavailableError: the dead letter is not stored.
        """
        dead_letter = unreadable(payload, error, origin, line)
        event = dead_letter_created(dead_letter, source=self._source, time=at)
        subject = dead_letter_subject(dead_letter.direction, dead_letter.channel)
        await self._publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))
        DEAD_LETTERS.labels(dead_letter.direction, dead_letter.channel or "unknown", error.code).inc()
        message_id = dead_letter.message_id and str(dead_letter.message_id)
        _log.error(
            "message_dead_lettered",
            message_id=message_id,
            reason=error.code,
            detail=str(error),
            **origin.model_dump(),
        )


def unreadable(payload: bytes, error: BadMessageError, origin: Origin, line: int = 0) -> DeadLetter:
    """Create the dead letter of a message that could not be read or applied.

    Its id depends on the place in the stream alone, so that two consumers that fail on the same message
    create one dead letter. If the payload is in fact a valid request to send, on which a consumer crashed,
    the dead letter can be found and replayed as one.
    """
    tokens = origin.subject.split(".")
    channel = next((Channel(token) for token in tokens if token in set(Channel)), None)
    request = _request_in(payload)
    return DeadLetter(
        id=dead_letter_id(origin.stream, origin.sequence, *([line] if line else [])),
        direction=Direction.INBOUND if origin.stream == Stream.INBOUND else Direction.OUTBOUND,
        channel=channel,
        reason=error.code,
        detail=str(error),
        message_id=request and request.message.id,
        generation=request.generation if request else 0,
        attempts=request.attempt if request else 0,
        request=request,
        origin=origin,
        **payload_fields(payload),
    )


def _request_in(payload: bytes) -> DeliveryRequest | None:
    if rb"\u0000" in payload:
        return None  # PostgreSQL cannot store this character, so it would not store the dead letter either
    try:
        data = decode(payload).data
    except BadMessageError:
        return None
    return data if isinstance(data, DeliveryRequest) else None


def payload_fields(payload: bytes) -> dict[str, Any]:
    """Return the fields of a dead letter that keep a payload, or its beginning if it is long."""
    text, encoded = _as_text(payload[:_MAX_COPY])
    return {"payload": text, "payload_base64": encoded, "is_cut": len(payload) > _MAX_COPY}


def body_fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a dead letter that keep the body of a webhook, of which there is no other copy.

    A long body is compressed. If a NATS message still cannot hold it, only its beginning is kept.
    """
    if len(body) > _MAX_COPY:
        compressed = base64.b64encode(zlib.compress(body)).decode("ascii")
        if len(compressed) <= _MAX_COMPRESSED:
            return {"payload_zlib": compressed}
    return payload_fields(body)


def original_payload(dead_letter: DeadLetter) -> bytes | None:
    """Return the payload that a dead letter keeps, if there is one."""
    if dead_letter.payload is not None:
        return dead_letter.payload.encode()
    if dead_letter.payload_base64 is not None:
        return base64.b64decode(dead_letter.payload_base64)
    if dead_letter.payload_zlib is not None:
        return zlib.decompress(base64.b64decode(dead_letter.payload_zlib))
    return None


def _as_text(payload: bytes) -> tuple[str | None, str | None]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return None, base64.b64encode(payload).decode("ascii")
    return text, None
