"""The suppression of recipients whose e-mails were returned, if only the message names the recipient.

A report may be read before its message, or before the event that has the provider's id of the message. It is
then read again later, so that no recipient is missed, even if a process stops in between.
"""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic

import structlog

from services.ingest.repository import Repository
from shared.addresses import read_email
from shared.bus.consumer import Done, HandBack, Outcome, StreamMessage
from shared.bus.suppression_list import SuppressionList
from shared.errors import UnavailableError
from shared.events import Event
from shared.message import IncomingReceipt
from shared.suppressions import change_by_bounce

_log = structlog.get_logger()

_LONGEST_DELAY = timedelta(minutes=5)
_ATTEMPTS = 12
"""After these, about half an hour in total, the report is assumed to be about somebody else's message."""

_REPORTS_PER_ATTEMPT = 50
"""While this many reports wait to be read again, each report gets one attempt less, and so on. At most 550 of
a process thus wait at the same time: too many of them would hold up all events of their consumer."""


class BounceHandler:
    """Suppresses the recipients of returned e-mails.

    Args:
        repository: finds the recipients.
        suppressions: records that they are suppressed.
        clock: returns the time in seconds since any starting point.
    """

    def __init__(
        self, repository: Repository, suppressions: SuppressionList, clock: Callable[[], float] = monotonic
    ) -> None:
        self._repository = repository
        self._suppressions = suppressions
        self._clock = clock
        self._waiting_until: list[float] = []  # the times at which reports are read again

    async def __call__(self, event: Event[IncomingReceipt], stream_message: StreamMessage) -> Outcome:
        """Suppress the recipient, and return when the report has to be read again, if it has to be."""
        receipt, deliveries = event.data, stream_message.deliveries
        again = HandBack(min(timedelta(seconds=2**deliveries), _LONGEST_DELAY))
        try:
            address = await self._repository.recipient_of(receipt.provider, receipt.provider_message_id)
            if address is not None:
                await self._suppressions.record(change_by_bounce(receipt, _key_of(address), at=event.time))
                return Done()
        except UnavailableError as exc:
            # Other events do not have to wait for this one.
            _log.warning("bounce_not_recorded", error=str(exc))
            return again
        if deliveries < self._attempts():
            self._waiting_until.append(self._clock() + again.delay.total_seconds())
            return again
        _log.warning("bounce_of_unknown_message", provider_message_id=receipt.provider_message_id)
        return Done()

    def _attempts(self) -> int:
        """Return how many times a report is currently read before its message is considered unknown."""
        now = self._clock()
        self._waiting_until = [time for time in self._waiting_until if time > now]
        return _ATTEMPTS - len(self._waiting_until) // _REPORTS_PER_ATTEMPT


def _key_of(address: str) -> str:
    found = read_email(address)
    return found.key if found else address
