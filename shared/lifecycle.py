"""What can become of a message, and which of two reports about it counts.

A report has a generation (0, and one more with each replay of a dead letter), a precedence within it, and an attempt.
The highest (generation, precedence, attempt) counts, so a status only moves forward and the order of arrival
does not matter; of two that are equal in all of them the one that happened first stands.
"""

from enum import StrEnum


class Status(StrEnum):
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

    @property
    def precedence(self) -> int:
        return _PRECEDENCE[self]


_FINAL = 4
_PRECEDENCE = {
    Status.RECEIVED: 0,
    Status.ACCEPTED: 0,
    Status.SCHEDULED: 1,
    Status.RETRYING: 2,
    Status.SENT: 3,
    Status.DELIVERED: _FINAL,
    Status.UNDELIVERED: _FINAL,
    Status.FAILED: _FINAL,
    Status.EXPIRED: _FINAL,
    Status.CANCELED: _FINAL,
}
