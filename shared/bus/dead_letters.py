"""Where every service puts what it cannot use."""

from datetime import datetime

import structlog

from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, dead_letter_subject
from shared.errors import BadMessageError
from shared.events import DeadLettered, Origin, unreadable
from shared.observability.metrics import DEAD_LETTERS

_log = structlog.get_logger()


class DeadLetterPublisher:
    """Publishes dead letters of the service `name`; from their stream they get into the database."""

    def __init__(self, publisher: Publisher, name: str) -> None:
        self._publisher = publisher
        self._source = f"/{name}"

    async def publish(self, payload: bytes, error: BadMessageError, origin: Origin, *, at: datetime) -> None:
        """Give up what lay at `origin`: when this returns, its dead letter is stored.

        Args:
            payload: of what lay there.
            error: what is wrong with it.
            origin: where it lay.
            at: when that which is given up, or the verdict on it, was stored. A replay, which gives it up
                again, then tells the same.

        Raises:
            BusUnavailableError: it is not.
        """
        dead_letter = unreadable(payload, error, origin)
        event = DeadLettered.of(dead_letter, source=self._source, time=at)
        subject = dead_letter_subject(dead_letter.direction, dead_letter.channel)
        await self._publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))
        DEAD_LETTERS.labels(dead_letter.direction, dead_letter.channel or "unknown", error.code).inc()
        message_id = dead_letter.message_id and str(dead_letter.message_id)
        _log.error(
            "dead_letter",
            message_id=message_id,
            reason=error.code,
            detail=str(error),
            **origin.model_dump(),
        )
