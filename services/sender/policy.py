"""The consequences of the outcomes of an attempt, as pure functions that return the entry for the ledger."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from services.sender.retry import next_attempt_at, next_deferral_at
from services.sender.settings import OnAmbiguous
from shared.ledger import DeliveryState, LedgerEntry
from shared.message import AttemptError, DeliveryRequest
from shared.providers.base import (
    OPTED_OUT,
    CredentialsError,
    ProviderError,
    RejectedError,
    UnknownOutcomeError,
)
from shared.suppressions import SuppressionChange


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class DeliveryPolicy:
    """Decides what follows from a failure, a deferral or an opt-out.

    Attributes:
        delays: between the attempts.
        on_ambiguous: for providers that do not honour idempotency keys.
        grace: after NATS was unavailable, how long the claims of other processes are respected however old
            they are: those processes may be about to record their results.
    """

    delays: Sequence[timedelta]
    on_ambiguous: OnAmbiguous
    grace: timedelta = timedelta(seconds=10)
    clock: Callable[[], datetime] = _now
    random: Random = field(default_factory=Random)

    def may_repeat(self, *, honours_idempotency_keys: bool) -> bool:
        """Return whether a message may be sent again that the provider may already have."""
        return honours_idempotency_keys or self.on_ambiguous is OnAmbiguous.RESEND

    def after_failure(
        self,
        request: DeliveryRequest,
        claim: LedgerEntry,
        failure: ProviderError,
        error: AttemptError,
        *,
        may_repeat: bool,
    ) -> LedgerEntry:
        """Return the entry of an attempt that failed.

        Args:
            request: the request.
            claim: the entry of the claim.
            failure: the error.
            error: the same, as it is reported.
            may_repeat: whether the message may be sent again if the provider may already have it.
        """
        if isinstance(failure, CredentialsError):
            # The provider accepts nothing from us, which is not this message's fault: no attempt is used up.
            return self.deferral(request, claim, not_before=error.at, error=error)
        if isinstance(failure, RejectedError):
            return claim.becomes(DeliveryState.FAILED, error.at, error=error)
        if isinstance(failure, UnknownOutcomeError):
            claim = claim.model_copy(update={"in_doubt_at": claim.provider})
            if not may_repeat:
                return claim.becomes(DeliveryState.FAILED, error.at, error=error)
        due = next_attempt_at(
            request.attempt,
            delays=self.delays,
            retry_after=failure.retry_after,
            now=error.at,
            expires_at=request.expires_at,
            random=self.random,
        )
        if due is None:
            return claim.becomes(DeliveryState.FAILED, error.at, error=error)
        return claim.becomes(DeliveryState.RETRYING, error.at, error=error, due=due)

    def deferral(
        self,
        request: DeliveryRequest,
        claim: LedgerEntry,
        *,
        not_before: datetime,
        error: AttemptError | None = None,
    ) -> LedgerEntry:
        """Return the entry of an attempt that is deferred without being used up."""
        now = self.clock()
        due = next_deferral_at(request.deferral_count, not_before=not_before, now=now, random=self.random)
        return claim.becomes(DeliveryState.DEFERRED, now, error=error, due=min(due, request.expires_at))

    def limited(self, request: DeliveryRequest, claim: LedgerEntry, *, seconds: float) -> LedgerEntry:
        """Return the entry of a message that has to wait for its limits for some time.

        The times of different messages are already apart from each other, and in their order.
        """
        now = self.clock()
        due = min(now + timedelta(seconds=seconds), request.expires_at)
        return claim.becomes(DeliveryState.DEFERRED, now, due=due, provider=None)

    def suppressed(
        self, request: DeliveryRequest, claim: LedgerEntry, suppression: SuppressionChange
    ) -> LedgerEntry:
        """Return the entry of a message whose recipient has opted out."""
        now = self.clock()
        detail = f"the recipient opted out on {suppression.occurred_at.isoformat()}: {suppression.source}"
        error = AttemptError(attempt=request.attempt, code=OPTED_OUT, detail=detail, at=now)
        return claim.becomes(DeliveryState.FAILED, now, provider=None, error=error)

    def ambiguous(self, request: DeliveryRequest, provider: str) -> LedgerEntry:
        """Return the entry of a message that the provider may have, and that must not be sent again."""
        now = self.clock()
        error = AttemptError(
            attempt=request.attempt,
            code="ambiguous",
            detail="the provider was asked to send the message, and its response is not known",
            provider=provider,
            at=now,
        )
        return LedgerEntry.of(
            request, DeliveryState.FAILED, now, provider=provider, error=error, in_doubt_at=provider
        )
