"""Cancels messages that nobody has begun to send."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.gateway.http.errors import ConflictError
from services.gateway.http.deadline import patience
from services.gateway.views import MessageView, MessageWithHistory
from shared.bus import key_value
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import Stream, event_subject
from shared.events import StatusChanged, StatusReport
from shared.ids import MessageId
from shared.ledger import Entry, Ledger, State
from shared.lifecycle import Status

_log = structlog.get_logger()

_NOT_BEGUN = {Status.ACCEPTED, Status.SCHEDULED, Status.RETRYING}


@dataclass(frozen=True, slots=True)
class Canceler:
    """Takes the next step of a message in the sender's place, which then finds it taken.

    The ledger arbitrates: of the sender's claim on that step and ours, compare-and-set lets one through.
    """

    ledger: Ledger
    publisher: Publisher
    clock: Callable[[], datetime]

    async def cancel(self, message: MessageWithHistory) -> MessageView:
        """Cancel a message; done again, it is the same cancellation.

        Raises:
            ConflictError: an attempt to send it has begun and may succeed or did, or it has ended otherwise.
            BusUnavailableError: it may be canceled, or not.
        """
        async with patience():
            entry = await self._canceled(message)
            await self._announce(message, entry)
        _log.info("message_canceled", message_id=str(message.id))
        return MessageView.model_validate({**dict(message), "status": Status.CANCELED, "error": None})

    async def _canceled(self, message: MessageWithHistory) -> Entry:
        id_ = MessageId(message.id)
        while True:
            record = await self.ledger.look_up(id_)
            if record is not None and record.entry.state is State.CANCELED:
                return record.entry
            present = record.entry if record and not _was_replayed(message, record.entry) else None
            _require_not_begun(message, present)
            entry = Entry(
                step=present.next_step if present else (_generation_of(message), 1, 0),
                state=State.CANCELED,
                at=self.clock(),
            )
            try:
                return (await self.ledger.write(id_, entry, after=record)).entry
            except bucket.ConflictError:
                continue  # it took a step meanwhile

    async def _announce(self, message: MessageWithHistory, entry: Entry) -> None:
        generation, attempt, _ = entry.step
        channel = message.type.channel
        report = StatusReport(
            message_id=MessageId(message.id),
            channel=channel,
            status=Status.CANCELED,
            generation=generation,
            attempt=attempt,
        )
        event = StatusChanged.of(report, time=entry.at, source="/gateway")
        subject = event_subject(channel, Status.CANCELED)
        await self.publisher.publish(Stream.EVENTS, Outgoing(subject, event.id, event.encode()))


def _require_not_begun(message: MessageWithHistory, entry: Entry | None) -> None:
    """Raises ConflictError if the message may be with its provider, or has come to its end."""
    if entry is None:
        # The sender has not seen it yet, or so long ago that the ledger has forgotten it.
        if message.status not in _NOT_BEGUN:
            raise _too_late(message.status)
    elif entry.state not in {State.DEFERRED, State.RETRYING}:
        raise _too_late("being sent" if entry.state is State.CLAIMED else entry.state)
    elif entry.in_doubt_at:
        raise ConflictError("An attempt to send it had no answer, so that its provider may have it")


def _was_replayed(message: MessageWithHistory, entry: Entry) -> bool:
    """Tell whether the message was given up, for certain, and has a generation that no sender has seen yet."""
    was_given_up = entry.state in {State.FAILED, State.EXPIRED} and not entry.in_doubt_at
    return was_given_up and entry.step[0] < _generation_of(message)


def _too_late(status: str) -> ConflictError:
    return ConflictError(f"It cannot be canceled any more: it is {status}")


def _generation_of(message: MessageWithHistory) -> int:
    return max((entry.generation for entry in message.history), default=0)
