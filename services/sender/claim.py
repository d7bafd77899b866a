"""The claim of a process on a step of a message, which is taken, renewed during the request, and resolved.

Other processes respect a claim until its lease is over. A process that cannot renew its claim stops sending
before that. It may still hold a response that it cannot record yet.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from secrets import token_hex

from tenacity import retry, retry_if_exception_type, wait_random

from services.sender.deadline import Deadline
from shared.bus.key_value import RevisionConflictError, Versioned
from shared.errors import BusUnavailableError
from shared.ids import MessageId
from shared.ledger import Ledger
from shared.lifecycle.entry import DeliveryState, LedgerEntry

LEASE = timedelta(seconds=14)
"""The time after which a claim that was not renewed is no longer respected. It is shorter than the time after
which NATS delivers the messages of a dead process again, so that they can then be sent at once."""

_MARGIN = 2.0
"""Seconds before the end of the lease at which sending stops. The clocks of two processes differ by less."""

_RENEWAL = 4.0
"""Seconds after which a claim is renewed. Most requests take less."""

_RETRY = 0.5


class Claim:
    """The claim on one step.

    Args:
        ledger: the ledger.
        message_id: the message.
        found: its entry in the ledger, if there is one.
        clock: returns the time.
    """

    def __init__(
        self,
        ledger: Ledger,
        message_id: MessageId,
        found: Versioned[LedgerEntry] | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._message_id = message_id
        self._found = found
        self._clock = clock
        self._id = token_hex(8)
        self._written: list[LedgerEntry] = []
        self._valid_until = 0.0
        self._deadline: Deadline | None = None

    @property
    def is_valid(self) -> bool:
        """Whether a request may still be made."""
        return asyncio.get_running_loop().time() < self._valid_until

    async def take(self, entry: LedgerEntry) -> LedgerEntry:
        """Write the claim, or renew it, and return it as it was written.

        Raises:
            RevisionConflictError: another process has taken the step.
            BusUnavailableError: NATS does not answer; the claim may be written nevertheless.
        """
        asked_at = asyncio.get_running_loop().time()
        entry = entry.becomes(DeliveryState.CLAIMED, self._clock(), claimed_by=self._id)
        self._written.append(entry)
        try:
            self._found = await self._ledger.write(self._message_id, entry, after=self._found)
        except RevisionConflictError:
            found = await self._ledger.look_up(self._message_id)
            if not (found and found.value in self._written):
                raise
            # The previous attempt to renew the claim was stored, but its acknowledgement was lost.
            self._found = await self._ledger.write(self._message_id, entry, after=found)
        self._valid_until = asked_at + LEASE.total_seconds() - _MARGIN
        if self._deadline:
            self._deadline.reschedule(self._valid_until)
        return entry

    @property
    def last(self) -> LedgerEntry:
        """The claim as it was written last, or as it should have been."""
        return self._written[-1]

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the claim as long as the block runs.

        Raises:
            TimeoutError: the claim could not be renewed in time, so the block was cancelled.
        """
        renewals: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        # A task for each request would be expensive.
        timer = loop.call_later(_RENEWAL, lambda: renewals.append(loop.create_task(self._renew())))
        try:
            async with Deadline(self._valid_until) as self._deadline:
                yield
        finally:
            self._deadline = None
            timer.cancel()
            for renewal in renewals:
                renewal.cancel()

    async def _renew(self) -> None:
        while True:
            try:
                await self.take(self.last)
            except RevisionConflictError:
                return
            except BusUnavailableError:
                await asyncio.sleep(_RETRY)
            else:
                await asyncio.sleep(_RENEWAL)

    async def record(self, entry: LedgerEntry) -> LedgerEntry:
        """Record the outcome, however long NATS is unavailable: no other process knows it.

        Returns:
            The entry as it was recorded.

        Raises:
            RevisionConflictError: another process has taken the step, and its outcome counts.
        """
        try:
            return await self._try_to_record(entry)
        except BusUnavailableError:
            return await self._record_later(entry)

    # Used only after a failure: tenacity itself takes a tenth of the CPU time of a delivery.
    @retry(retry=retry_if_exception_type(BusUnavailableError), wait=wait_random(0.1, 0.3))
    async def _record_later(self, entry: LedgerEntry) -> LedgerEntry:
        return await self._try_to_record(entry)

    async def _try_to_record(self, entry: LedgerEntry) -> LedgerEntry:
        try:
            await self._ledger.write(self._message_id, entry, after=self._found)
        except RevisionConflictError:
            found = await self._ledger.look_up(self._message_id)
            if found is None:
                raise
            if found.value == entry:
                return entry  # it was stored, but the acknowledgement was lost
            is_ours = found.value in self._written
            resolved = entry if is_ours else entry.correct(found.value)
            if resolved is None:
                raise
            await self._ledger.write(self._message_id, resolved, after=found)
            return resolved
        return entry
