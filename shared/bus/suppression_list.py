"""The suppression list: for each pair of addresses, the last change in the stream SUPPRESSIONS applies.

The stream is never purged, and NATS answers which pairs have opted out, so that the gateway and the sender do
not need PostgreSQL. A change is written by compare-and-set and only if it is later than the current one, so
that neither the order of arrival nor repetitions matter.
"""

import asyncio

import structlog

from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore, RevisionConflictError
from shared.bus.publisher import Publisher
from shared.bus.suppression_index import SuppressionIndex
from shared.bus.topology import Stream, suppression_subject
from shared.channels import Channel
from shared.events import Event, suppression_changed
from shared.ids import suppression_key
from shared.message import Message
from shared.observability.metrics import SUPPRESSION_CHANGES
from shared.suppressions import SuppressionChange, SuppressionState

_log = structlog.get_logger()

_LOG_EVENTS = {
    SuppressionState.OPTED_OUT: "recipient_opted_out",
    SuppressionState.OPTED_IN: "recipient_opted_in",
}


class SuppressionList:
    """The state of all pairs; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._changes = KeyValueStore(bus, publisher, Stream.SUPPRESSIONS, Event[SuppressionChange])
        self._index = SuppressionIndex(bus)

    async def suppression_of(self, message: Message) -> SuppressionChange | None:
        """Return the opt-out that forbids a message: from its sender's address, or from all our addresses.

        An opt-out that was recorded before this call is never overlooked.
        """
        channel, theirs = message.channel, message.their_key
        pairs = [suppression_key(channel, ours, theirs) for ours in (message.our_key, None)]
        subjects = [suppression_subject(channel, pair) for pair in pairs]
        found = await asyncio.gather(*map(self._last_change, await self._index.with_messages(subjects)))
        return next((each for each in found if each and each.state is SuppressionState.OPTED_OUT), None)

    async def latest(self, channel: Channel, ours: str | None, theirs: str) -> SuppressionChange | None:
        """Return the change that applies to a pair of address keys, or None if there is none."""
        return await self._last_change(suppression_subject(channel, suppression_key(channel, ours, theirs)))

    async def _last_change(self, subject: str) -> SuppressionChange | None:
        found = await self._changes.get(subject)
        return found.value.data if found else None

    async def record(
        self, change: SuppressionChange, *, cause: object = None, only_if_changed: bool = False
    ) -> SuppressionChange:
        """Record a change unless a later one is known; return the change that applies now.

        Args:
            change: the change.
            cause: identifies what caused the change, if that may be reported again at another time.
            only_if_changed: record nothing if the pair is already in that state. Use it for requests, as
                opposed to reports of something that happened at a certain time.
        """
        event = suppression_changed(change, cause=cause)
        subject = suppression_subject(change.channel, change.key)
        while True:
            found = await self._changes.get(subject)
            known = found.value.data if found else None
            state = known.state if known else SuppressionState.OPTED_IN
            if known and not change.supersedes(known):
                return known
            if only_if_changed and state is change.state:
                return known or change
            try:
                await self._changes.put(subject, event, after=found, id_=event.id)
            except RevisionConflictError:
                continue  # somebody else recorded a change in the meantime
            SUPPRESSION_CHANGES.labels(change.channel, change.state, change.source).inc()
            _log.info(_LOG_EVENTS[change.state], suppression=str(change.key), source=change.source)
            return change
