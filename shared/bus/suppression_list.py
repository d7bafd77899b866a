"""The suppression list: for each pair of addresses, the last change in the stream SUPPRESSIONS applies.

The stream is never purged, and NATS answers which pairs have opted out, so that the gateway and the sender do
not need PostgreSQL. A change is written by compare-and-set, and only if it is later than the current one. A
change with a cause, such as a text message, counts from its arrival, so it is later than all that are known,
even if the clocks of two gateways differ. If the message arrives again, it is recognised in the stream, which
contains all changes, so that it does not undo a later change. An opt-in that is more than a minute older than
the last change is not recorded: a webhook that is replayed counts from its first arrival.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from weakref import WeakValueDictionary

import structlog

from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore, RevisionConflictError, UnreadableValueError, Versioned
from shared.bus.publisher import Publisher
from shared.bus.suppression_index import SuppressionIndex
from shared.bus.topology import IDEMPOTENCY_BUCKET, Stream, suppression_subject
from shared.channels import Channel
from shared.events import Event, suppression_changed
from shared.ids import suppression_key
from shared.message import Message
from shared.observability.metrics import SUPPRESSION_CHANGES
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState

_log = structlog.get_logger()

_LOG_EVENTS = {
    SuppressionState.OPTED_OUT: "recipient_opted_out",
    SuppressionState.OPTED_IN: "recipient_opted_in",
}


_Pair = tuple[Channel, str | None, str]
"""The channel, our address and theirs."""

_MOMENT = timedelta(microseconds=1)

_CLOCK_DIFFERENCE = timedelta(minutes=1)
"""By how much the clocks of two gateways may differ."""

_MAX_HISTORY = 1_000
"""Changes of one pair. After this many, only changes that cannot be repeated opt the pair in."""


class SuppressionList:
    """The state of all pairs; its methods raise BusUnavailableError when NATS does not answer.

    Args:
        bus: the connection.
        publisher: writes the changes.
        groups: the opt-out groups that our messages are sent in, by provider.
    """

    def __init__(self, bus: Bus, publisher: Publisher, groups: Mapping[str, str] | None = None) -> None:
        self.groups = groups or {}
        self._bus = bus
        self._changes = KeyValueStore(bus, publisher, Stream.SUPPRESSIONS, Event[SuppressionChange])
        self._without_effect = KeyValueStore.bucket(
            bus, publisher, IDEMPOTENCY_BUCKET, Event[SuppressionChange]
        )
        self._index = SuppressionIndex(bus)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def suppression_of(self, message: Message) -> SuppressionChange | None:
        """Return an opt-out that forbids a message: from its sender, its group, or all our addresses.

        It may be the opt-out of any recipient, including those of copies.

        An opt-out that was recorded before this call is never overlooked.
        """
        [suppression] = await self.suppressions_of([message])
        return suppression

    async def suppressions_of(self, messages: Sequence[Message]) -> list[SuppressionChange | None]:
        """Return an opt-out that forbids each message; see `suppression_of`."""
        pairs = [self._pairs_of(message) for message in messages]
        known = set(await self._index.with_messages({subject for each in pairs for subject in each}))
        if not known:  # as for nearly all messages, which need no tasks for that
            return [None] * len(messages)
        checks = (self._opt_out(pair for subject, pair in each.items() if subject in known) for each in pairs)
        return list(await asyncio.gather(*checks))

    def _pairs_of(self, message: Message) -> Mapping[str, _Pair]:
        """Return the pairs whose opt-outs forbid a message, by subject."""
        recipients = [*message.recipient_keys, *(copy.key for copy in message.copies)]
        return {
            _subject(message.channel, ours, theirs): (message.channel, ours, theirs)
            for theirs in recipients
            for ours in (message.from_key, *self.groups.values(), None)
        }

    async def _opt_out(self, pairs: Iterable[_Pair]) -> SuppressionChange | None:
        found = await asyncio.gather(*(self.latest(*pair) for pair in pairs))
        return next((each for each in found if each and each.state is SuppressionState.OPTED_OUT), None)

    async def latest(self, channel: Channel, ours: str | None, theirs: str) -> SuppressionChange | None:
        """Return the change that applies to a pair of address keys, or None if there is none.

        A change that cannot be read may be an opt-out, so it counts as one.
        """
        _, change = await self._read(channel, ours, theirs)
        return change

    async def record(self, change: SuppressionChange, *, only_if_changed: bool = False) -> SuppressionChange:
        """Record a change unless a later one is known; return the change that applies now.

        A change with a cause is later than all known ones, but is recorded only once, whenever and however
        often the cause is reported. Only an opt-in that is much older than a known change comes too late,
        such as that of a webhook that is replayed.

        Args:
            change: the change.
            only_if_changed: record nothing if the pair is already in that state. Use it for requests, as
                opposed to reports of something that happened at a certain time.
        """
        subject = _subject(change.channel, change.ours, change.theirs)
        # Otherwise, a hundred simultaneous changes of a pair would each be attempted fifty times on average.
        async with self._locks.setdefault(subject, asyncio.Lock()):
            return await self._record(change, subject, only_if_changed=only_if_changed)

    async def _record(
        self, change: SuppressionChange, subject: str, *, only_if_changed: bool
    ) -> SuppressionChange:
        while True:
            found, known = await self._read(change.channel, change.ours, change.theirs)
            state = known.state if known else SuppressionState.OPTED_IN
            if known and not change.supersedes(known):
                is_old = change.occurred_at < known.occurred_at - _CLOCK_DIFFERENCE
                if change.cause is None or (is_old and change.state is SuppressionState.OPTED_IN):
                    return known
                change = change.model_copy(update={"occurred_at": known.occurred_at + _MOMENT})
            event = suppression_changed(change)
            is_readable = not isinstance(found, UnreadableValueError)
            if only_if_changed and state is change.state and is_readable:
                await self._remember(event)
                return known or change
            if known and await self._is_repetition(event, subject):
                _log.warning("suppression_change_repeated", suppression=str(change.key), state=change.state)
                return known
            try:
                await self._changes.put(subject, event, after=found, id_=event.id)
            except RevisionConflictError:
                continue  # another process recorded a change in the meantime
            SUPPRESSION_CHANGES.labels(change.channel, change.state, change.source).inc()
            _log.info(_LOG_EVENTS[change.state], suppression=str(change.key), source=change.source)
            return change

    async def _read(
        self, channel: Channel, ours: str | None, theirs: str
    ) -> tuple[Versioned[Event[SuppressionChange]] | UnreadableValueError | None, SuppressionChange | None]:
        """Return the last change of a pair as it is stored, and as it applies."""
        try:
            found = await self._changes.get(_subject(channel, ours, theirs))
        except UnreadableValueError as exc:
            _log.error("suppression_unreadable", error=str(exc))
            return exc, SuppressionChange(
                channel=channel,
                ours=ours,
                theirs=theirs,
                state=SuppressionState.OPTED_OUT,
                source=SuppressionSource.UNREADABLE,
                occurred_at=exc.stored_at,
            )
        return found, found.value.data if found else None

    async def _remember(self, event: Event[SuppressionChange]) -> None:
        """Remember a cause that changed nothing, since it must not change anything later either."""
        if event.data.cause:
            with suppress(RevisionConflictError):
                await self._without_effect.put(str(event.id), event, after=None)

    async def _is_repetition(self, event: Event[SuppressionChange], subject: str) -> bool:
        """Return whether the same cause was reported before, however long ago."""
        if event.data.cause is None:
            return False
        answer = await self._bus.next_messages(Stream.SUPPRESSIONS, 1, count=_MAX_HISTORY, subject=subject)
        if not answer.is_complete:
            return event.data.state is SuppressionState.OPTED_IN
        if any(str(event.id).encode() in message.payload for message in answer.messages):
            return True
        try:
            return await self._without_effect.get(str(event.id)) is not None
        except UnreadableValueError:
            return True


def _subject(channel: Channel, ours: str | None, theirs: str) -> str:
    return suppression_subject(channel, suppression_key(channel, ours, theirs))
