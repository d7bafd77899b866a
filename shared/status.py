"""The statuses of a message, their order, and the steps of its delivery.

A report on a message has a replay generation (0, increased by one with each replay of its dead letter), a
status with a precedence, and an attempt. The highest (generation, precedence, attempt) wins, so that a status
only moves forward and the order of arrival does not matter; of several equal reports, the latest wins.

Several final receipts for one message are therefore judged by the provider's times: its later word counts,
and a delivery is not taken back by a report that was made earlier. A failure of an e-mail has a higher
precedence than its delivery, because mail servers may return a mail that they have accepted, but not the
reverse.

A failure is in doubt if a provider may have the message. It has a lower precedence, so that a later certainty
counts instead: the acceptance, or a receipt from the provider.

A message that was sent is never shown as expired. The ledger forgets messages that can no longer be sent, and
if such a message is read again, the sender reports that it has expired, whatever became of it before.
"""

from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """The status of a message, or of a report in its history.

    Attributes:
        UNKNOWN: the provider's status is not known to us. It is in the history of the message, but is never
            its status.
    """

    RECEIVED = "received"
    ACCEPTED = "accepted"
    SCHEDULED = "scheduled"
    RETRYING = "retrying"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @property
    def precedence(self) -> int:
        return _PRECEDENCE[self]


IN_DOUBT = 2
"""The precedence of a failure in doubt, which is later than any retry."""

_FINAL = 4

RETURNED = 5
"""The precedence of a provider's report that it could not deliver an e-mail."""

_PRECEDENCE = {
    Status.UNKNOWN: -1,
    Status.RECEIVED: 0,
    Status.ACCEPTED: 0,
    Status.SCHEDULED: 1,
    Status.RETRYING: 2,
    Status.EXPIRED: 2,  # it is later than any retry
    Status.SENT: 3,
    Status.DELIVERED: _FINAL,
    Status.UNDELIVERED: _FINAL,
    Status.FAILED: _FINAL,
    Status.CANCELED: _FINAL,
}


class Step(NamedTuple):
    """A step in the delivery of a message; each step is greater than the one before.

    Attributes:
        generation: 0, increased by one with each replay of the message's dead letter.
        attempt: the number of the attempt, from 1.
        deferral_count: how often this attempt was deferred without being used up.
    """

    generation: int
    attempt: int
    deferral_count: int

    @property
    def next_attempt(self) -> "Step":
        return Step(self.generation, self.attempt + 1, 0)

    @property
    def deferred(self) -> "Step":
        return self._replace(deferral_count=self.deferral_count + 1)
