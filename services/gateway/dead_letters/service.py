"""Replaying and discarding dead letters."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from services.gateway.http.errors import ConflictError
from shared.bus.dead_letters import original_payload
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import INGEST_CONSUMERS, Stream, dead_letter_resolved_subject, outbound_subject
from shared.dead_letters import DeadLetterResolution, PostedWebhook, Resolution
from shared.events import dead_letter_resolved, message_accepted
from shared.ids import event_id
from shared.lifecycle.interventions import replay
from shared.message import DeliveryRequest
from shared.observability.metrics import ACCEPTED
from shared.providers.webhooks import WebhookError
from shared.resources.dead_letters import DeadLetterResponse, DeadLetterState

_log = structlog.get_logger()

_LOG_EVENTS = {Resolution.REPLAYED: "dead_letter_replayed", Resolution.DISCARDED: "dead_letter_discarded"}

_REPLAYABLE = {Stream.INBOUND, Stream.OUTBOUND, Stream.DELAYED, Stream.EVENTS, Stream.DEADLETTER}
"""Streams whose messages are published by us; advisories are published by the server."""

_STORING = {consumer.name for consumer in INGEST_CONSUMERS}
"""Consumers that send nothing: a message that they could not process may have been sent nevertheless."""


@dataclass(frozen=True, slots=True)
class DeadLetterService:
    """Replays or discards dead letters, and records the caller.

    The record comes last: without it a dead letter is still open and can be replayed again, or the next
    generation of its message shows that it was. In the opposite order, an interrupted replay would look like
    a completed one.

    Its methods raise ConflictError for a dead letter that is not open, and BusUnavailableError when JetStream
    does not acknowledge; repeating them is then harmless.

    Attributes:
        post_again: publishes the content of a webhook that could not be read; raises WebhookError.
        validity: how long after its replay a message may still be sent.
        clock: returns the time, in UTC.
    """

    publisher: Publisher
    post_again: Callable[[PostedWebhook, bytes], Awaitable[None]]
    validity: timedelta
    clock: Callable[[], datetime]

    async def replay(self, dead_letter: DeadLetterResponse, caller: str) -> int | None:
        """Replay a dead letter; calling this twice replays it once.

        Args:
            dead_letter: the dead letter.
            caller: name of the caller's API key.

        Returns:
            The new generation of its message, or None if the payload returned to its stream unchanged.

        Raises:
            ConflictError: there is nothing to replay, or the message was sent after all.
        """
        _require_open(dead_letter)
        generation = None
        if dead_letter.webhook is not None:
            await self._replay_webhook(dead_letter, dead_letter.webhook)
        elif dead_letter.request is None or _is_of_storing(dead_letter):
            await self._replay_payload(dead_letter)
        else:
            # With a payload, it was not the sender that gave up; the ledger decides whether it was sent.
            if dead_letter.is_sent and dead_letter.payload is None:
                raise ConflictError("already_sent", "The message was sent after all; discard the dead letter")
            generation = await self._replay_message(dead_letter.request)
        ACCEPTED.labels(dead_letter.channel or "unknown", "replay").inc()
        await self._record(dead_letter, Resolution.REPLAYED, None, caller)
        return generation

    async def discard(self, dead_letter: DeadLetterResponse, reason: str, caller: str) -> None:
        """Record that nothing is left to do; if this is done twice, the first record applies."""
        _require_open(dead_letter)
        await self._record(dead_letter, Resolution.DISCARDED, reason, caller)

    async def _replay_message(self, failed: DeliveryRequest) -> int:
        now = self.clock()
        request = replay(failed, self.validity, now)
        message, event = request.message, message_accepted(request, time=now)
        subject = outbound_subject(message.channel, message.conversation_key, message.priority)
        await self.publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))
        return request.generation

    async def _replay_webhook(self, dead_letter: DeadLetterResponse, webhook: PostedWebhook) -> None:
        if dead_letter.is_cut:
            raise ConflictError("payload_cut", "The webhook is too large to be kept in the dead letter")
        try:
            await self.post_again(webhook, original_payload(dead_letter) or b"")
        except WebhookError as exc:
            detail = f"The webhook still cannot be read: {exc}"
            raise ConflictError("nothing_to_replay", detail) from exc

    async def _replay_payload(self, dead_letter: DeadLetterResponse) -> None:
        origin = dead_letter.origin
        if origin and dead_letter.is_cut:
            detail = (
                "The payload is too large to be kept in the dead letter; replay it from its stream: "
                f"message {origin.sequence} of {origin.stream}"
            )
            raise ConflictError("payload_cut", detail)
        payload = original_payload(dead_letter)
        if not payload or origin is None or origin.stream not in _REPLAYABLE:
            raise ConflictError("nothing_to_replay", "There is no payload to replay")
        outgoing = Outgoing(origin.subject, event_id(dead_letter.id, "replayed"), payload)
        await self.publisher.publish(Stream(origin.stream), outgoing)

    async def _record(
        self, dead_letter: DeadLetterResponse, resolution: Resolution, reason: str | None, caller: str
    ) -> None:
        data = DeadLetterResolution(
            dead_letter_id=dead_letter.id, resolution=resolution, reason=reason, by=caller
        )
        event = dead_letter_resolved(data, time=self.clock())
        subject = dead_letter_resolved_subject(dead_letter.channel)
        await self.publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))
        _log.info(
            _LOG_EVENTS[resolution],
            dead_letter_id=str(dead_letter.id),
            message_id=dead_letter.message_id and str(dead_letter.message_id),
            caller=caller,
        )


def _require_open(dead_letter: DeadLetterResponse) -> None:
    if dead_letter.state is not DeadLetterState.OPEN:
        raise ConflictError("dead_letter_resolved", f"The dead letter was already {dead_letter.state}")


def _is_of_storing(dead_letter: DeadLetterResponse) -> bool:
    return dead_letter.origin is not None and dead_letter.origin.consumer in _STORING
