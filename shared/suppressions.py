"""Who wants nothing more from us: of each pair of addresses the last change in the stream SUPPRESSIONS holds.

The stream is never purged and can be asked for one pair in one request, so that the gateway and the sender
know without PostgreSQL. A change is written by compare-and-set and only if it is later than the one that is
there, so that it does not matter in which order changes are heard of, or how often.
"""

import asyncio

import structlog

from shared.addresses import key_of
from shared.bus.key_value import ConflictError, Value, Values
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import Stream, suppression_subject
from shared.channels import Channel
from shared.events import SuppressionChange, SuppressionChanged, SuppressionState, Message
from shared.ids import suppression_key
from shared.observability.metrics import SUPPRESSION_CHANGES

_log = structlog.get_logger()


class SuppressionList:
    """What holds of all pairs; the methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._changes = Values(bus, publisher, Stream.SUPPRESSIONS)

    async def suppression_of(self, message: Message) -> SuppressionChange | None:
        """Return by what the recipient of an outbound message opted out, of its sender or of all of ours."""
        channel = message.channel
        ours, theirs = key_of(message.from_, channel), key_of(message.to, channel)
        changes = await asyncio.gather(
            self.latest(channel, ours, theirs),
            self.latest(channel, None, theirs),
        )
        return next((each for each in changes if each and each.state is SuppressionState.OPTED_OUT), None)

    async def latest(self, channel: Channel, ours: str | None, theirs: str) -> SuppressionChange | None:
        """Return the change that holds of a pair of address keys; who never made one has not opted out."""
        return _change_in(await self._changes.get(suppression_subject(channel, suppression_key(ours, theirs))))

    async def record(
        self, change: SuppressionChange, *, cause: object = None, unless_so: bool = False
    ) -> SuppressionChange | None:
        """Write a change down, unless a later one is known; return what holds then.

        Args:
            change: to be written.
            cause: names what brought the change about, if that may be heard of again at another time.
            unless_so: not if the state is this one already: for what is no report of a certain moment.
        """
        event, subject = SuppressionChanged.of(change, cause=cause), suppression_subject(change.channel, change.key)
        while True:
            value = await self._changes.get(subject)
            known = _change_in(value)
            is_so = (known.state if known else SuppressionState.OPTED_IN) is change.state
            if (known and not change.supersedes(known)) or (unless_so and is_so):
                return known
            try:
                revision = value.revision if value else 0
                await self._changes.put(subject, event.encode(), revision=revision, id_=event.id)
            except ConflictError:
                continue  # somebody else made a change meanwhile
            SUPPRESSION_CHANGES.labels(change.channel, change.state, change.source).inc()
            _log.info(f"recipient_{change.state}", consent=str(change.key), source=change.source)
            return change


def _change_in(value: Value | None) -> SuppressionChange | None:
    return SuppressionChanged.model_validate_json(value.data).data if value else None
