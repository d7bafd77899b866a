"""The opt-outs in memory, brought up to date by one request for what is new in the stream."""

import asyncio
from uuid import UUID

from shared.bus.client import Bus
from shared.bus.direct_get import StoredMessage, direct_get
from shared.bus.topology import Stream
from shared.events import Event
from shared.ids import SuppressionKey
from shared.suppressions import SuppressionChange, SuppressionState

_BATCH = 1_000

_ALL = "suppression.>"


class OptOutCache:
    """The pairs that have opted out, as the stream SUPPRESSIONS has them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._opt_outs: dict[UUID, SuppressionChange] = {}
        self._newest: StoredMessage | None = None
        self._reading: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def get(self, key: SuppressionKey) -> SuppressionChange | None:
        """Return the opt-out of a pair, as of the last refresh."""
        return self._opt_outs.get(key)

    async def refresh(self) -> None:
        """Bring the cache up to date with everything that was stored before this call.

        Callers share a request that none of them has seen begin: one that is under way may have been answered
        before a change that the caller knows of.

        Raises:
            BusUnavailableError: NATS does not answer.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._read_after(self._reading))
        await asyncio.shield(self._next)

    async def _read_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        else:
            await asyncio.sleep(0)  # callers in the same turn of the loop share the request
        self._reading, self._next = self._next, None
        while await self._read_new():
            pass

    async def _read_new(self) -> bool:
        """Read what is new, and return whether there is more."""
        # The newest known message is read once more, which shows that the stream is still the same: it may have been
        # restored from a backup.
        first = self._newest.sequence if self._newest else 1
        request = {"seq": first, "batch": _BATCH, "next_by_subj": _ALL}
        result = await direct_get(self._bus, Stream.SUPPRESSIONS, request)
        messages = result.messages
        if self._newest is not None:
            if not messages or messages[0] != self._newest:
                self._opt_outs.clear()
                self._newest = None
                return True
            messages = messages[1:]
        for message in messages:
            self._apply(message)
        return not result.is_complete

    def _apply(self, message: StoredMessage) -> None:
        change = Event[SuppressionChange].model_validate_json(message.payload).data
        if change.state is SuppressionState.OPTED_OUT:
            self._opt_outs[change.key] = change
        else:
            self._opt_outs.pop(change.key, None)
        self._newest = message
