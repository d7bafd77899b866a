"""The rules of interventions by people: replaying the dead letter of a message, and cancelling it."""

from datetime import datetime, timedelta

from shared.errors import ServiceError
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.message import DeliveryRequest
from shared.status import Status, Step


def replay(failed: DeliveryRequest, validity: timedelta, now: datetime) -> DeliveryRequest:
    """Return the request that sends a failed message again, in the next generation.

    Args:
        failed: the request of its dead letter.
        validity: how long the message may be sent after that.
        now: the time.
    """
    return DeliveryRequest(
        message=failed.message,
        caller=failed.caller,
        generation=failed.generation + 1,
        expires_at=failed.message.expiry(validity, now),
    )


class NotCancelableError(ServiceError):
    """The message is being sent, may have been sent, or is in a final status.

    Attributes:
        in_doubt: whether an earlier attempt got no response, so that a provider may have the message.
    """

    def __init__(self, detail: str, *, in_doubt: bool = False) -> None:
        super().__init__(detail)
        self.in_doubt = in_doubt


_NOT_STARTED = {Status.ACCEPTED, Status.SCHEDULED, Status.RETRYING}
_WAITING = {DeliveryState.RELEASED, DeliveryState.RETRYING, DeliveryState.DEFERRED}


def cancellation(entry: LedgerEntry | None, status: Status, generation: int, now: datetime) -> LedgerEntry:
    """Return the entry that claims the next step of a message in place of the sender, and cancels it.

    Args:
        entry: the current entry, which is returned if the message is already cancelled.
        status: the status of the message, according to the reports on it.
        generation: its replay generation, according to the same reports.
        now: the time.

    Raises:
        NotCancelableError: the provider may have the message, or its status is final.
    """
    if entry is not None and entry.state is DeliveryState.CANCELED:
        return entry
    if entry is None or _was_replayed(entry, generation):
        # Either the sender has not read the message yet, or the ledger has forgotten it.
        if status not in _NOT_STARTED:
            raise _too_late(status)
        step = Step(generation, 1, 0)
    elif entry.state not in _WAITING:
        raise _too_late("being sent" if entry.state is DeliveryState.CLAIMED else entry.state)
    elif entry.in_doubt_at:
        detail = "An earlier attempt got no response, so the provider may already have the message"
        raise NotCancelableError(detail, in_doubt=True)
    else:
        step = entry.next_step
    return LedgerEntry(step=step, state=DeliveryState.CANCELED, at=now)


def _was_replayed(entry: LedgerEntry, generation: int) -> bool:
    """Return whether the message certainly failed, and has a later generation that no sender has read yet."""
    certainly_failed = entry.state in {DeliveryState.FAILED, DeliveryState.EXPIRED} and not entry.in_doubt_at
    return certainly_failed and entry.step.generation < generation


def _too_late(status: str) -> NotCancelableError:
    return NotCancelableError(f"The message can no longer be cancelled: it is {status}")
