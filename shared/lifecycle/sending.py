"""The rules of sending a message within a step: the choice of the provider, and the possible outcomes."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.message import AttemptError, DeliveryRequest
from shared.providers.base import (
    OPTED_OUT,
)
from shared.suppressions import SuppressionChange


class _Provider(Protocol):
    @property
    def honours_idempotency_keys(self) -> bool: ...


P = TypeVar("P", bound=_Provider)


def candidates(preferred: Sequence[P], in_doubt_at: P | None) -> Sequence[P]:
    """Return the providers that may send a message, in the order in which to try them.

    If a provider may already have the message, it is tried first, because it may recognise the message. If it
    honours idempotency keys, no other provider is tried.
    """
    if in_doubt_at is None:
        return preferred
    if in_doubt_at.honours_idempotency_keys:
        return [in_doubt_at]
    return [in_doubt_at, *(provider for provider in preferred if provider is not in_doubt_at)]


def refusal(
    request: DeliveryRequest, claim: LedgerEntry, suppression: SuppressionChange | None
) -> LedgerEntry | None:
    """Return the entry of a message that must no longer be sent, or None if it may be sent.

    Args:
        request: the request.
        claim: the entry that is written if the message is sent.
        suppression: the recipient's opt-out, if there is one.
    """
    if claim.at >= request.expires_at:
        return claim.becomes(DeliveryState.EXPIRED, claim.at, provider=None)
    if suppression is None:
        return None
    detail = f"the recipient opted out on {suppression.occurred_at.isoformat()}: {suppression.source}"
    error = AttemptError(attempt=request.attempt, code=OPTED_OUT, detail=detail, at=claim.at)
    return claim.becomes(DeliveryState.FAILED, claim.at, provider=None, error=error)


def unsendable(request: DeliveryRequest, in_doubt_at: str | None, now: datetime) -> LedgerEntry:
    """Return the entry of a message to a group that no chosen provider can send to."""
    detail = "no provider of this sender can send to a group"
    error = AttemptError(attempt=request.attempt, code="no_group_provider", detail=detail, at=now)
    return LedgerEntry.of(request, DeliveryState.FAILED, now, error=error, in_doubt_at=in_doubt_at)


def postponement(postponed: Sequence[LedgerEntry]) -> LedgerEntry:
    """Return the entry of a step that all providers postponed: a release, or else the earliest deferral."""
    released = (entry for entry in postponed if entry.state is DeliveryState.RELEASED)
    return next(released, None) or min(postponed, key=lambda entry: entry.due or entry.at)


def limited(request: DeliveryRequest, claim: LedgerEntry, now: datetime, seconds: float) -> LedgerEntry:
    """Return the entry of a message that has to wait `seconds` for its limits.

    There is no jitter, because the times of different messages are already spread out, if they wait for a
    rate.
    """
    due = min(now + timedelta(seconds=seconds), request.expires_at)
    return claim.becomes(DeliveryState.DEFERRED, now, due=due, provider=None)


def all_errors(request: DeliveryRequest, entry: LedgerEntry) -> list[AttemptError]:
    """Return the errors of all attempts up to an entry, oldest first."""
    return [*request.errors, *([entry.error] if entry.error else [])]


def next_request(request: DeliveryRequest, entry: LedgerEntry) -> DeliveryRequest:
    """Return the request of the next attempt, or of the same attempt after a deferral."""
    errors = request.errors if entry.state is DeliveryState.DEFERRED else all_errors(request, entry)
    return request.model_copy(update={**entry.next_step._asdict(), "errors": errors})
