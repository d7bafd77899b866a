"""Cancels messages that are not being sent yet."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.gateway.http.errors import ConflictError
from services.gateway.messages.schemas import MessageResponse, MessageWithHistory
from shared.bus.key_value import RevisionConflictError
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, event_subject
from shared.events import status_changed
from shared.ids import MessageId
from shared.ledger import DeliveryState, Ledger, LedgerEntry
from shared.lifecycle import Status, Step
from shared.message import StatusReport

_log = structlog.get_logger()

_NOT_STARTED = {Status.ACCEPTED, Status.SCHEDULED, Status.RETRYING}


@dataclass(frozen=True, slots=True)
class CancellationService:
    """Claims the next step of a message in place of the sender, which then finds it taken.

    The ledger arbitrates: compare-and-set lets either the cancellation or the sender's claim on that step
    succeed.
    """

    ledger: Ledger
    publisher: Publisher
    clock: Callable[[], datetime]

    async def cancel(self, message: MessageWithHistory) -> MessageResponse:
        """Cancel a message; cancelling it again returns the same response.

        Raises:
            ConflictError: an attempt to send it has started and may succeed, or the message is already in a
                final status.
            BusUnavailableError: NATS does not answer; the message may or may not be cancelled.
        """
        entry = await self._cancel(message)
        await self._publish(message, entry)
        _log.info("message_canceled", message_id=str(message.id))
        return MessageResponse.model_validate({**dict(message), "status": Status.CANCELED, "error": None})

    async def _cancel(self, message: MessageWithHistory) -> LedgerEntry:
        id_ = MessageId(message.id)
        while True:
            found = await self.ledger.look_up(id_)
            if found is not None and found.value.state is DeliveryState.CANCELED:
                return found.value
            present = found.value if found and not _was_replayed(message, found.value) else None
            _require_not_started(message, present)
            entry = LedgerEntry(
                step=present.next_step if present else Step(_generation_of(message), 1, 0),
                state=DeliveryState.CANCELED,
                at=self.clock(),
            )
            try:
                return (await self.ledger.write(id_, entry, after=found)).value
            except RevisionConflictError:
                continue  # the sender has taken a step in the meantime

    async def _publish(self, message: MessageWithHistory, entry: LedgerEntry) -> None:
        channel = message.type.channel
        report = StatusReport(
            message_id=MessageId(message.id),
            channel=channel,
            status=Status.CANCELED,
            generation=entry.step.generation,
            attempt=entry.step.attempt,
        )
        event = status_changed(report, time=entry.at, source="/gateway")
        subject = event_subject(channel, Status.CANCELED)
        await self.publisher.publish(Stream.EVENTS, Outgoing(subject, event.id, event.encode()))


def _require_not_started(message: MessageWithHistory, entry: LedgerEntry | None) -> None:
    """Raise ConflictError if the provider may have the message, or its status is final."""
    if entry is None:
        # The sender has not seen the message yet, or handled it so long ago that the ledger has forgotten it.
        if message.status not in _NOT_STARTED:
            raise _too_late(message.status)
    elif entry.state not in {DeliveryState.DEFERRED, DeliveryState.RETRYING}:
        raise _too_late("being sent" if entry.state is DeliveryState.CLAIMED else entry.state)
    elif entry.in_doubt_at:
        detail = "An earlier attempt got no response, so the provider may already have the message"
        raise ConflictError("outcome_unknown", detail)


def _was_replayed(message: MessageWithHistory, entry: LedgerEntry) -> bool:
    """Return whether the message certainly failed, and has a later generation that no sender has seen yet."""
    certainly_failed = entry.state in {DeliveryState.FAILED, DeliveryState.EXPIRED} and not entry.in_doubt_at
    return certainly_failed and entry.step.generation < _generation_of(message)


def _too_late(status: str) -> ConflictError:
    return ConflictError("not_cancelable", f"The message can no longer be cancelled: it is {status}")


def _generation_of(message: MessageWithHistory) -> int:
    return max((entry.generation for entry in message.history), default=0)
