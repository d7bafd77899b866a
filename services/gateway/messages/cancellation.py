"""Cancels messages that are not being sent yet."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.gateway.http.errors import ConflictError
from services.gateway.messages.schemas import MessageWithHistory
from shared.bus.key_value import RevisionConflictError, UnreadableValueError
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, event_subject
from shared.events import status_changed
from shared.ids import MessageId
from shared.ledger import Ledger
from shared.lifecycle.entry import LedgerEntry
from shared.lifecycle.interventions import NotCancelableError, cancellation
from shared.message import StatusReport
from shared.resources.messages import MessageResponse
from shared.status import Status

_log = structlog.get_logger()

_UNREADABLE = "The record of this message's delivery cannot be read, so it may have been sent"


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
            try:
                found = await self.ledger.look_up(id_)
            except UnreadableValueError as exc:
                _log.error("ledger_entry_unreadable", message_id=str(id_), error=str(exc))
                raise ConflictError("outcome_unknown", _UNREADABLE) from exc
            present = found.value if found else None
            try:
                entry = cancellation(present, message.status, _generation_of(message), self.clock())
            except NotCancelableError as exc:
                raise ConflictError(
                    "outcome_unknown" if exc.in_doubt else "not_cancelable", str(exc)
                ) from exc
            if entry is present:
                return entry
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


def _generation_of(message: MessageWithHistory) -> int:
    return max((entry.generation for entry in message.history), default=0)
