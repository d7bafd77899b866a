"""Tells the streams what the ledger has recorded of a message.

Everything here follows from the request and the entry alone, ids and times included, so that it can be told
again at any time and is recognised as a repetition.
"""

from datetime import UTC, datetime, timedelta

from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import (
    Stream,
    dead_letter_subject,
    delayed_due_subject,
    delayed_wait_subject,
    event_subject,
)
from shared.channels import Direction
from shared.events import (
    DeadLetter,
    DeadLettered,
    DeliveryDue,
    DeliveryRequest,
    Origin,
    StatusChanged,
    StatusReport,
)
from shared.ids import dead_letter_id
from shared.ledger import Entry, State, step_of
from shared.lifecycle import Status

_STATUS = {
    State.SENT: Status.SENT,
    State.RETRYING: Status.RETRYING,
    State.DEFERRED: Status.SCHEDULED,
    State.FAILED: Status.FAILED,
    State.EXPIRED: Status.EXPIRED,
    State.CANCELED: Status.CANCELED,
}


class EventPublisher:
    """Publishes; each method raises BusUnavailableError, and may then be called again."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def announce(self, request: DeliveryRequest, entry: Entry, origin: Origin) -> None:
        """Tell what `entry`, which has a result, means for others.

        Of an attempt that is put off again and again the first time is reported: an event has one content.
        That a message was sent or canceled is told of later rounds as well.

        What leads to the next step comes last: once that is taken, this one is announced no more.
        """
        if entry.state is not State.DEFERRED or request.deferral_count == 0:
            await self._report(request, entry)
        match entry.state:
            case State.RETRYING | State.DEFERRED:
                await self._schedule(_next_step(request, entry), entry)
            case State.FAILED:
                await self._give_up(request, entry, origin)

    async def _schedule(self, request: DeliveryRequest, entry: Entry) -> None:
        message = request.message
        event = DeliveryDue.of(request, time=entry.at)
        target = delayed_due_subject(message.channel, message.conversation_key, message.id)
        headers = {"Nats-Schedule": f"@at {_rfc3339(entry.due or entry.at)}", "Nats-Schedule-Target": target}
        subject = delayed_wait_subject(message.id)
        # Without an id: the server would not take it again where an older step, told late, has replaced it.
        await self._publisher.publish(Stream.DELAYED, Outgoing(subject, None, event.encode(), headers))

    async def _give_up(self, request: DeliveryRequest, entry: Entry, origin: Origin) -> None:
        message = request.message
        errors = [*request.errors, *([entry.error] if entry.error else [])]
        reason = entry.error.code if entry.error else "failed"
        dead_letter = DeadLetter(
            id=dead_letter_id(message.id, request.generation),
            direction=Direction.OUTBOUND,
            channel=message.channel,
            reason=reason,
            detail=entry.error.detail if entry.error else "",
            message_id=message.id,
            generation=request.generation,
            attempts=request.attempt,
            errors=errors,
            request=request,
            origin=origin,
        )
        event = DeadLettered.of(dead_letter, source="/sender", time=entry.at)
        subject = dead_letter_subject(Direction.OUTBOUND, message.channel)
        await self._publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))

    async def _report(self, request: DeliveryRequest, entry: Entry) -> None:
        message = request.message
        generation, attempt, _ = max(step_of(request), entry.step)
        report = StatusReport(
            message_id=message.id,
            channel=message.channel,
            status=_STATUS[entry.state],
            generation=generation,
            attempt=attempt,
            provider=entry.provider,
            provider_message_id=entry.provider_message_id,
            error=entry.error,
            next_attempt_at=entry.due,
        )
        event = StatusChanged.of(report, time=entry.at)
        subject = event_subject(message.channel, report.status)
        await self._publisher.publish(Stream.EVENTS, Outgoing(subject, event.id, event.encode()))


def _next_step(request: DeliveryRequest, entry: Entry) -> DeliveryRequest:
    """Make the request as it is to come again: the next attempt, or the same one put off once more."""
    if entry.state is State.DEFERRED:
        return request.model_copy(update={"deferral_count": request.deferral_count + 1})
    errors = [*request.errors, *([entry.error] if entry.error else [])]
    return request.model_copy(update={"attempt": request.attempt + 1, "deferral_count": 0, "errors": errors})


def _rfc3339(moment: datetime) -> str:
    # The server reads milliseconds; cutting the rest off would make it early.
    moment += timedelta(milliseconds=1)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
