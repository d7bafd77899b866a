"""Publishes to the streams what the ledger has recorded about a message.

Everything here follows from the request and the ledger entry alone, ids and times included, so that it can
be published again at any time and is recognised as a repetition.
"""

from datetime import UTC, datetime, timedelta

from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import (
    LEDGER_GRACE,
    Stream,
    dead_letter_subject,
    delayed_due_subject,
    delayed_wait_subject,
    event_subject,
)
from shared.channels import Direction
from shared.dead_letters import DeadLetter, Origin
from shared.events import dead_letter_created, delivery_due, status_changed
from shared.ids import dead_letter_id
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.lifecycle.sending import all_errors, next_request
from shared.message import DeliveryRequest, StatusReport
from shared.status import Status

_STATUSES = {
    DeliveryState.SENT: Status.SENT,
    DeliveryState.RELEASED: Status.RETRYING,
    DeliveryState.RETRYING: Status.RETRYING,
    DeliveryState.DEFERRED: Status.SCHEDULED,
    DeliveryState.FAILED: Status.FAILED,
    DeliveryState.EXPIRED: Status.EXPIRED,
    DeliveryState.CANCELED: Status.CANCELED,
}


class EventPublisher:
    """Publishes the events that follow from ledger entries."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, request: DeliveryRequest, entry: LedgerEntry, origin: Origin) -> None:
        """Publish the events of an entry that is not just a claim.

        Raises:
            BusUnavailableError: NATS does not answer; call the method again later.
        """
        # An attempt that is deferred repeatedly is reported only the first time: the same event cannot have
        # different content.
        if entry.state is not DeliveryState.DEFERRED or request.deferral_count == 0:
            await self._publish_status(request, entry)
        # The event that leads to the next step comes last: once that step is taken, this one is not published
        # again.
        match entry.state:
            case DeliveryState.RETRYING | DeliveryState.DEFERRED:
                await self.schedule(next_request(request, entry), time=entry.at, due=entry.due or entry.at)
            case DeliveryState.FAILED:
                await self._publish_dead_letter(request, entry, origin)
            case DeliveryState.EXPIRED if entry.at < request.expires_at + LEDGER_GRACE:
                # Later, the ledger may have forgotten that the message was sent.
                await self._publish_dead_letter(request, entry, origin)

    async def _publish_status(self, request: DeliveryRequest, entry: LedgerEntry) -> None:
        message = request.message
        # A message that was sent or cancelled in an earlier generation is reported for the later one as well.
        step = request.step if request.generation > entry.step.generation else entry.step
        report = StatusReport(
            message_id=message.id,
            channel=message.channel,
            status=_STATUSES[entry.state],
            generation=step.generation,
            attempt=step.attempt,
            provider=entry.provider,
            provider_message_id=entry.provider_message_id,
            error=entry.error,
            in_doubt=entry.state is DeliveryState.FAILED and entry.in_doubt_at is not None,
            next_attempt_at=entry.due,
        )
        is_released = entry.state is DeliveryState.RELEASED
        event = status_changed(report, time=entry.at, source="/sender", is_released=is_released)
        subject = event_subject(message.channel, report.status)
        await self._publisher.publish(Stream.EVENTS, Outgoing(subject, event.id, event.encode()))

    async def schedule(self, request: DeliveryRequest, *, time: datetime, due: datetime) -> None:
        """Schedule a step of a message.

        Args:
            request: the message and its step.
            time: when this was decided.
            due: when the step is to be taken.

        Raises:
            BusUnavailableError: NATS does not answer.
        """
        message = request.message
        event = delivery_due(request, time=time)
        target = delayed_due_subject(message.channel, message.conversation_key, message.id)
        headers = {"Nats-Schedule": f"@at {_rfc3339(due)}", "Nats-Schedule-Target": target}
        subject = delayed_wait_subject(message.id)
        # There is no id for deduplication: the server has to accept this schedule again after an older one,
        # published late, has replaced it.
        await self._publisher.publish(Stream.DELAYED, Outgoing(subject, None, event.encode(), headers))

    async def _publish_dead_letter(
        self, request: DeliveryRequest, entry: LedgerEntry, origin: Origin
    ) -> None:
        message = request.message
        dead_letter = DeadLetter(
            id=dead_letter_id(message.id, request.generation),
            direction=Direction.OUTBOUND,
            channel=message.channel,
            reason=entry.error.code if entry.error else entry.state,
            detail=entry.error.detail if entry.error else f"the message expired at {request.expires_at}",
            message_id=message.id,
            generation=request.generation,
            attempts=request.attempt,
            errors=all_errors(request, entry),
            request=request,
            origin=origin,
        )
        event = dead_letter_created(dead_letter, source="/sender", time=entry.at)
        subject = dead_letter_subject(Direction.OUTBOUND, message.channel)
        await self._publisher.publish(Stream.DEADLETTER, Outgoing(subject, event.id, event.encode()))


def _rfc3339(moment: datetime) -> str:
    # The server reads milliseconds; truncating the rest would make the schedule early.
    moment += timedelta(milliseconds=1)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
