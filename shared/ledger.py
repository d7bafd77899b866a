"""The ledger: a record of what was done with each message, which makes redeliveries and replays harmless.

There is one entry for each message, changed only by compare-and-set. It contains the step that was claimed
most recently and its outcome.
"""

from datetime import timedelta

from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore, Versioned
from shared.bus.publisher import Publisher
from shared.bus.topology import DELIVERIES_BUCKET, LEDGER_GRACE
from shared.ids import MessageId
from shared.lifecycle.entry import LedgerEntry


class Ledger:
    """The entries of all messages; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._bus = bus
        self._entries = KeyValueStore.bucket(bus, publisher, DELIVERIES_BUCKET, LedgerEntry)

    @property
    def connected_for(self) -> timedelta:
        """How long the ledger has been available without interruption."""
        return self._bus.connected_for

    async def look_up(self, message_id: MessageId) -> Versioned[LedgerEntry] | None:
        return await self._entries.get(str(message_id))

    async def write(
        self, message_id: MessageId, entry: LedgerEntry, *, after: Versioned[LedgerEntry] | None
    ) -> Versioned[LedgerEntry]:
        """Write an entry if the current one is still `after`, or if there is none and `after` is None.

        Raises:
            RevisionConflictError: the entry has changed.
        """
        return await self._entries.put(str(message_id), entry, after=after, ttl=_time_to_live(entry))


def _time_to_live(entry: LedgerEntry) -> timedelta | None:
    """Return how long an entry has to be kept, or None if the entry does not determine it."""
    if entry.expires_at is None:
        return None
    return max(entry.expires_at - entry.at, timedelta(0)) + LEDGER_GRACE
