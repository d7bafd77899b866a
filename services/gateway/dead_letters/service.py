"""Does what people decide about dead letters."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from services.gateway.http.errors import ConflictError
from services.gateway.views import DeadLetterState, DeadLetterView
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import INGEST_CONSUMERS, Stream, dead_letter_resolved_subject, outbound_subject
from shared.events import (
    DeadLetterResolution,
    DeadLetterResolved,
    DeliveryRequest,
    MessageAccepted,
    Resolution,
)
from shared.ids import event_id
from shared.observability.metrics import ACCEPTED

_log = structlog.get_logger()

_REPLAYABLE = {Stream.INBOUND, Stream.OUTBOUND, Stream.DELAYED, Stream.EVENTS, Stream.DEADLETTER}
"""Streams whose messages are ours; advisories are the server's."""

_STORING = {consumer.name for consumer in INGEST_CONSUMERS}
"""Consumers that send nothing: what they gave up may well have been sent."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """Replays dead letters, or discards them, and leaves a record of who did.

    The record comes last: without it a dead letter is still open and can be replayed again, or the next generation
    of its message says that it was. The other way round, what was interrupted would pass for replayed.

    Methods raise ConflictError for a dead letter that is not open, and BusUnavailableError when JetStream
    does not acknowledge; to repeat them then does no harm.

    Attributes:
        validity: how long after its replay a message may still be sent.
        clock: tells the time, in UTC.
    """

    publisher: Publisher
    validity: timedelta
    clock: Callable[[], datetime]

    async def replay(self, dead_letter: DeadLetterView, by: str) -> int | None:
        """Put what was given up on its way again; done twice, it is one replay.

        Args:
            dead_letter: the one to replay.
            by: name of the API key.

        Returns:
            the generation that its message is in now, or None for what goes back to its stream as it was.

        Raises:
            ConflictError: nothing is left of it that could be replayed.
        """
        _require_open(dead_letter)
        generation = None
        if dead_letter.request is None or dead_letter.origin.consumer in _STORING:
            await self._replay_payload(dead_letter)
        else:
            generation = await self._replay_message(dead_letter, dead_letter.request)
        ACCEPTED.labels(dead_letter.channel or "unknown", "replay").inc()
        await self._record(dead_letter, Resolution.REPLAYED, None, by)
        return generation

    async def discard(self, dead_letter: DeadLetterView, reason: str, by: str) -> None:
        """Record that nothing more is to be done about it; done twice, the first record stands."""
        _require_open(dead_letter)
        await self._record(dead_letter, Resolution.DISCARDED, reason, by)

    async def _replay_message(self, dead_letter: DeadLetterView, given_up: DeliveryRequest) -> int:
        now = self.clock()
        request = given_up.model_copy(
            update={
                "generation": dead_letter.generation + 1,
                "attempt": 1,
                "deferral_count": 0,
                "errors": [],
                "expires_at": given_up.message.expiry(self.validity, now),
            }
        )
        message, event = request.message, MessageAccepted.of(request, time=now)
        subject = outbound_subject(message.channel, message.conversation_key)
        await self.publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))
        return request.generation

    async def _replay_payload(self, dead_letter: DeadLetterView) -> None:
        origin = dead_letter.origin
        if dead_letter.is_cut:
            place = f"message {origin.sequence} of {origin.stream}"
            raise ConflictError(f"It is too large to be kept whole here; replay it from its stream: {place}")
        payload = _original_payload(dead_letter)
        if not payload or origin.stream not in _REPLAYABLE:
            raise ConflictError("Nothing is left of it that could be replayed")
        outgoing = Outgoing(origin.subject, event_id(dead_letter.id, "replayed"), payload)
        await self.publisher.publish(Stream(origin.stream), outgoing)

    async def _record(
        self, dead_letter: DeadLetterView, resolution: Resolution, reason: str | None, by: str
    ) -> None:
        data = DeadLetterResolution(
            dead_letter_id=dead_letter.id, resolution=resolution, reason=reason, by=by
        )
        event = DeadLetterResolved.of(data, time=self.clock())
        subject = dead_letter_resolved_subject(dead_letter.channel)
        await self.publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))
        _log.info(
            f"dead_letter_{resolution}",
            dead_letter_id=str(dead_letter.id),
            message_id=dead_letter.message_id and str(dead_letter.message_id),
            client=by,
        )


def _require_open(dead_letter: DeadLetterView) -> None:
    if dead_letter.state is not DeadLetterState.OPEN:
        raise ConflictError(f"It was {dead_letter.state} already")


def _original_payload(dead_letter: DeadLetterView) -> bytes | None:
    if dead_letter.payload is not None:
        return dead_letter.payload.encode()
    if dead_letter.payload_base64 is not None:
        return base64.b64decode(dead_letter.payload_base64)
    return None
