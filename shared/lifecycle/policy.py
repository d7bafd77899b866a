"""The rules of the delivery of an outbound message, as functions of values and without I/O.

The ledger has one entry for each message, with the step that was claimed most recently and its outcome. The
sender reads that entry, lets these rules decide, and writes the entry that follows by compare-and-set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from shared.lifecycle.decisions import Attempt, Decision, Facts, Ignore, Publish, Record, Wait
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.message import AttemptError, DeliveryRequest
from shared.providers.base import (
    CredentialsError,
    ProviderError,
    RejectedError,
    UnknownOutcomeError,
)

DEFERRAL_DELAYS: tuple[timedelta, ...] = tuple(
    timedelta(seconds=seconds) for seconds in (5, 15, 30, 60, 120, 300)
)
"""The delays between the deferrals of a message; the last one repeats."""

MIN_PAUSE = timedelta(seconds=1)
"""The pause if a provider asks us to wait without saying for how long, or for less than this."""

_JITTER = 0.2


class OnAmbiguous(StrEnum):
    """The treatment of a message that a provider without idempotency keys may have accepted."""

    RESEND = "resend"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class DeliveryPolicy:
    """Decides what to do with a request, and what follows from a provider's response.

    Attributes:
        delays: the delays between attempts.
        on_ambiguous: the treatment of unknown outcomes at providers that do not honour idempotency keys.
        grace: how long after an outage of NATS all claims of other processes are respected, however old:
            those processes may be about to record their results.
        random: the source of the jitter.
    """

    delays: Sequence[timedelta]
    on_ambiguous: OnAmbiguous
    grace: timedelta = timedelta(seconds=10)
    random: Random = field(default_factory=Random)

    def decide(
        self, entry: LedgerEntry | None, request: DeliveryRequest, now: datetime, facts: Facts
    ) -> Decision:
        """Return the action for a request.

        Args:
            entry: the entry of its message in the ledger, if there is one.
            request: the request.
            now: the time.
            facts: the circumstances.
        """
        in_doubt_at = None
        if entry is not None:
            request = _catch_up(entry, request)
            if settled := self._settle(entry, request, now, facts):
                return settled
            in_doubt_at = entry.may_be_at
            if in_doubt_at and not (_is_wanted_again(entry, request) or self._may_repeat(in_doubt_at, facts)):
                return Record(request, _ambiguous(request, in_doubt_at, now))
        if now >= request.expires_at:
            expired = LedgerEntry.of(request, DeliveryState.EXPIRED, now, in_doubt_at=in_doubt_at)
            return Record(request, expired)
        if _is_early(request, now):
            due = request.message.send_at
            deferred = LedgerEntry.of(request, DeliveryState.DEFERRED, now, due=due, in_doubt_at=in_doubt_at)
            return Record(request, deferred)
        return Attempt(request, in_doubt_at)

    def _settle(
        self, entry: LedgerEntry, request: DeliveryRequest, now: datetime, facts: Facts
    ) -> Ignore | Wait | Publish | None:
        """Settle a request according to the ledger, or return None if its step has to be taken now."""
        state, is_replay = entry.state, request.generation > entry.step.generation
        if state in {DeliveryState.SENT, DeliveryState.CANCELED}:
            # The process that recorded this may have died before it published it, and it may have read an
            # earlier step than this one. A replay sends nothing, but its generation has to end as well.
            return Publish(request, entry)
        if request.step < entry.step:
            return Ignore()
        if request.step > entry.step:
            return Ignore() if state.ends_generation and not is_replay else None
        match state:
            case DeliveryState.RELEASED:
                return None
            case DeliveryState.CLAIMED:
                # After an outage of NATS, the other process also needs time to record the result that it
                # could not record during the outage.
                free_at = max(entry.at + facts.lease, now + self.grace - facts.connected_for)
                return Wait(free_at) if free_at > now else None
        return Publish(request, entry)

    def after_failure(
        self,
        request: DeliveryRequest,
        claim: LedgerEntry,
        failure: ProviderError,
        now: datetime,
        facts: Facts,
    ) -> LedgerEntry:
        """Return the entry of an attempt that failed."""
        error = AttemptError(
            attempt=request.attempt,
            code=failure.code,
            detail=str(failure),
            provider=claim.provider,
            status_code=failure.status_code,
            at=now,
        )
        if isinstance(failure, RejectedError):
            return claim.becomes(DeliveryState.FAILED, now, error=error)
        if isinstance(failure, UnknownOutcomeError):
            claim = claim.model_copy(update={"in_doubt_at": claim.provider})
            if not self._may_repeat(claim.provider, facts):
                return claim.becomes(DeliveryState.FAILED, now, error=error)
        elif failure.throttled and facts.keeps_place:
            until = min(now + max(failure.retry_after or MIN_PAUSE, MIN_PAUSE), request.expires_at)
            return claim.becomes(DeliveryState.RELEASED, now, error=error, due=until)
        elif failure.throttled or isinstance(failure, CredentialsError):
            # This is not the message's fault: no attempt is used up.
            not_before = now + (failure.retry_after or timedelta(0))
            return self.deferral(request, claim, now, not_before=not_before, error=error)
        due = self._next_attempt_at(request, now, failure.retry_after)
        state = DeliveryState.RETRYING if due else DeliveryState.FAILED
        return claim.becomes(state, now, error=error, due=due)

    def deferral(
        self,
        request: DeliveryRequest,
        claim: LedgerEntry,
        now: datetime,
        *,
        not_before: datetime,
        error: AttemptError | None = None,
    ) -> LedgerEntry:
        """Return the entry of an attempt that is deferred without being used up."""
        delay = DEFERRAL_DELAYS[min(request.deferral_count, len(DEFERRAL_DELAYS) - 1)]
        due = max(now, not_before) + self._with_jitter(delay)
        return claim.becomes(DeliveryState.DEFERRED, now, error=error, due=min(due, request.expires_at))

    def _may_repeat(self, provider: str | None, facts: Facts) -> bool:
        """Return whether a message that the provider may already have may be sent again."""
        return provider in facts.honouring_keys or self.on_ambiguous is OnAmbiguous.RESEND

    def _next_attempt_at(
        self, request: DeliveryRequest, now: datetime, retry_after: timedelta | None
    ) -> datetime | None:
        """Return the time of the next attempt, or None if this was the last one.

        The delay varies by a fifth either way, is never shorter than the provider requested, and ends when
        the message expires.
        """
        if request.attempt > len(self.delays):
            return None
        delay = self._with_jitter(self.delays[request.attempt - 1])
        return min(now + max(delay, retry_after or timedelta(0)), request.expires_at)

    def _with_jitter(self, delay: timedelta) -> timedelta:
        return delay * self.random.uniform(1 - _JITTER, 1 + _JITTER)


def _catch_up(entry: LedgerEntry, request: DeliveryRequest) -> DeliveryRequest:
    """Return the request of an entry in place of an older one, unless its generation has ended.

    DELAYED keeps one step of each message. A step that a stalled process schedules late replaces the step
    that the message has reached by then, and therefore has to stand in for it.
    """
    if request.step >= entry.step or entry.state.ends_generation or entry.expires_at is None:
        return request
    return request.model_copy(
        update={**entry.step._asdict(), "errors": entry.errors, "expires_at": entry.expires_at}
    )


def _is_wanted_again(entry: LedgerEntry, request: DeliveryRequest) -> bool:
    """Return whether a message is sent again because of a replay, even if the provider has it.

    A replay that is released or deferred at its first attempt still has to be sent.
    """
    is_postponed_replay = request.generation > 0 and request.attempt == 1 and entry.is_postponed
    return request.generation > entry.step.generation or is_postponed_replay


def _is_early(request: DeliveryRequest, now: datetime) -> bool:
    """Return whether a scheduled message has to be deferred until its time.

    Only its first request is compared with the clock. NATS delivers later ones when they are due.
    """
    send_at = request.message.send_at
    is_first_request = (request.attempt, request.deferral_count) == (1, 0)
    return is_first_request and send_at is not None and now < send_at


def _ambiguous(request: DeliveryRequest, provider: str, now: datetime) -> LedgerEntry:
    """Return the entry of a message that the provider may have and that must not be sent again."""
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
