"""Where ingest puts what it cannot store."""

from datetime import UTC, datetime, timedelta

import structlog

from shared.bus.consumer import Done, HandBack, Outcome
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, dead_letter_subject
from shared.errors import BadMessageError, BusUnavailableError
from shared.events import DeadLetter, DeadLettered, Origin, unreadable
from shared.metrics import DEAD_LETTERS

_log = structlog.get_logger()

_LARGEST_COPY = 128 * 1024
"""Bytes. JSON may spell one byte with six, and NATS takes a message of 1 MiB."""

_BUS_PAUSE = timedelta(seconds=1)


class DeadLetterOffice:
    """Publishes dead letters; from their stream they get into the database like all else."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def bury(self, payload: bytes, error: BadMessageError, origin: Origin) -> Outcome:
        """Give up what lay at `origin`: it is done with once the dead letter is stored, and not before."""
        dead_letter = _dead_letter(payload, error, origin)
        event = DeadLettered.of(dead_letter, source="/ingest", time=datetime.now(UTC))
        subject = dead_letter_subject(dead_letter.direction, dead_letter.channel)
        try:
            await self._publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))
        except BusUnavailableError as exc:
            _log.warning("dead_letter_not_published", error=str(exc))
            return HandBack(_BUS_PAUSE)
        DEAD_LETTERS.labels(dead_letter.direction, dead_letter.channel or "unknown", error.code).inc()
        _log.error("dead_letter", reason=error.code, detail=str(error), **origin.model_dump())
        return Done()


def _dead_letter(payload: bytes, error: BadMessageError, origin: Origin) -> DeadLetter:
    if len(payload) <= _LARGEST_COPY:
        return unreadable(payload, error, origin)
    shortened = f"{error} (only the first of {len(payload)} bytes are kept here; the stream has them all)"
    return unreadable(payload[:_LARGEST_COPY], BadMessageError(error.code, shortened), origin)
