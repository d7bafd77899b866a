"""The life cycle of an outbound message: its rules, as functions of values and without I/O.

The ledger has one entry for each message, with the step that was claimed most recently and its outcome. The
sender, the cancellation and the replay of dead letters read that entry, let these rules decide, and write the
entry that follows by compare-and-set.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Protocol, Self, TypeVar

from pydantic import AwareDatetime, Field

from shared.errors import ServiceError
from shared.message import AttemptError, DeliveryRequest, FrozenModel
from shared.providers.base import (
    OPTED_OUT,
    CredentialsError,
    ProviderError,
    RejectedError,
    UnknownOutcomeError,
)
from shared.status import Status, Step
from shared.suppressions import SuppressionChange

DEFERRAL_DELAYS: tuple[timedelta, ...] = tuple(
    timedelta(seconds=seconds) for seconds in (5, 15, 30, 60, 120, 300)
)
"""The delays between the deferrals of a message; the last one repeats."""

_JITTER = 0.2


class DeliveryState(StrEnum):
    """The outcome of a step.

    Attributes:
        CLAIMED: the outcome is not known yet.
        RELEASED: the provider asked us to wait; the message keeps its place, and its step is taken again.
        DEFERRED: the attempt was not used up and is due later.
    """

    CLAIMED = "claimed"
    RELEASED = "released"
    SENT = "sent"
    RETRYING = "retrying"
    DEFERRED = "deferred"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"

    @property
    def ends_generation(self) -> bool:
        return self in _ENDS


_ENDS = {DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.EXPIRED, DeliveryState.CANCELED}
_POSTPONED = {DeliveryState.RELEASED, DeliveryState.DEFERRED}


class LedgerEntry(FrozenModel):
    """The state of the delivery of a message.

    Attributes:
        at: when the step had this outcome.
        provider: the provider of this step.
        in_doubt_at: the provider of an earlier attempt without a response, which may have the message.
        error: the error of the attempt, if it failed.
        due: when the next step is to be taken; for `RETRYING` and `DEFERRED`.
        errors, expires_at: those of the request that led to the step.
    """

    step: Step
    state: DeliveryState
    at: AwareDatetime
    provider: str | None = None
    provider_message_id: str | None = None
    error: AttemptError | None = None
    in_doubt_at: str | None = None
    due: AwareDatetime | None = None
    errors: list[AttemptError] = Field(default_factory=list)
    expires_at: AwareDatetime | None = None

    @classmethod
    def of(cls, request: DeliveryRequest, state: DeliveryState, at: AwareDatetime, **fields: object) -> Self:
        """Create the entry of a request."""
        known = {"errors": request.errors, "expires_at": request.expires_at}
        return cls(step=request.step, state=state, at=at, **known, **fields)

    def becomes(self, state: DeliveryState, at: AwareDatetime, **fields: object) -> Self:
        return self.model_copy(update={"state": state, "at": at, **fields})

    @property
    def next_step(self) -> Step:
        """The step that follows, if there is one."""
        match self.state:
            case DeliveryState.RELEASED:
                return self.step
            case DeliveryState.DEFERRED:
                return self.step.deferred
        return self.step.next_attempt

    @property
    def may_be_at(self) -> str | None:
        """The provider that may have the message because its response to a request is not known."""
        return self.provider if self.state is DeliveryState.CLAIMED else self.in_doubt_at

    @property
    def is_postponed(self) -> bool:
        """Whether the step has ended without using up its attempt, and another provider may take it."""
        return self.state in _POSTPONED

    def correct(self, recorded: Self) -> Self | None:
        """Return the entry that replaces one that was recorded meanwhile, or None if that one stands.

        After the claim of a slow process has expired, another process continues, in doubt about whether the
        provider has the message. An acceptance removes the doubt, whatever was recorded because of it.
        """
        is_correction = self.state is DeliveryState.SENT and recorded.state is not DeliveryState.SENT
        if not (is_correction and recorded.may_be_at):
            return None
        return self.model_copy(
            update={"step": max(self.step, recorded.step), "expires_at": recorded.expires_at}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The circumstances in which a process takes a step.

    Attributes:
        lease: the time after which a claim without an outcome belongs to a process that died.
        connected_for: how long NATS has been available to this process without interruption.
        honouring_keys: the providers that honour idempotency keys.
        keeps_place: whether the message can wait in its place. Otherwise, it is deferred.
        may_wait: whether the message can wait in the process for its limits. Otherwise, it is deferred soon.
    """

    lease: timedelta
    connected_for: timedelta
    honouring_keys: Container[str]
    keeps_place: bool = False
    may_wait: bool = True


@dataclass(frozen=True, slots=True)
class Ignore:
    """Do nothing: the step was taken long ago."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at this time: another process has claimed the step, and may still be sending."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the recorded entry; the process that recorded it may have died before publishing it."""

    request: DeliveryRequest
    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class Record:
    """Record and publish an entry without making a request to a provider."""

    request: DeliveryRequest
    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class Attempt:
    """Claim the step and try the providers; the one named by `in_doubt_at` may already have the message."""

    request: DeliveryRequest
    in_doubt_at: str | None


Decision = Ignore | Wait | Publish | Record | Attempt
"""The action for a request. The request in it may be newer than the one that was read."""


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
            return claim.becomes(DeliveryState.RELEASED, now, error=error)
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

    Only its first request is compared with the local clock. NATS delivers later ones when they are due by its
    own clock.
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
