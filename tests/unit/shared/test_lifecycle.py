"""The rules of the delivery of a message, case by case."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sender.settings import DEFAULT_RETRY_DELAYS
from shared.channels import Channel
from shared.lifecycle.decisions import Attempt, Decision, Facts, Ignore, Publish, Record, Wait
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.lifecycle.interventions import NotCancelableError, cancellation, replay
from shared.lifecycle.policy import DeliveryPolicy, OnAmbiguous
from shared.lifecycle.sending import candidates, next_request, postponement, refusal
from shared.message import AttemptError, DeliveryRequest
from shared.providers.base import (
    CredentialsError,
    NotReachedError,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.status import Status, Step
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRY = NOW + timedelta(hours=4)
LEASE = timedelta(seconds=28)
SECOND = timedelta(seconds=1)
POLICY = DeliveryPolicy(
    delays=[timedelta(seconds=seconds) for seconds in DEFAULT_RETRY_DELAYS],
    on_ambiguous=OnAmbiguous.FAIL,
    grace=timedelta(seconds=10),
    random=Random(0),
)
FACTS = Facts(lease=LEASE, connected_for=timedelta(days=1), honouring_keys={"keyed"})
IN_PLACE = replace(FACTS, keeps_place=True)
MESSAGE = messages.message(created_at=NOW)

FIRST, DEFERRED, SECOND_ATTEMPT, REPLAYED = (0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)


def request_of(step: tuple[int, int, int] = FIRST, **fields: object) -> DeliveryRequest:
    return messages.request(MESSAGE, **{"expires_at": EXPIRY, **Step(*step)._asdict(), **fields})


def entry_of(
    state: DeliveryState, step: tuple[int, int, int] = FIRST, *, at: datetime = NOW, **fields: object
) -> LedgerEntry:
    return LedgerEntry.of(request_of(step), state, at, **fields)


def decide(entry: LedgerEntry | None, request: DeliveryRequest, facts: Facts = FACTS) -> Decision:
    return POLICY.decide(entry, request, NOW, facts)


def error_of(request: DeliveryRequest) -> AttemptError:
    return AttemptError(attempt=request.attempt, code="code", detail="detail", provider="keyed", at=NOW)


# --- Decisions ---


def test_a_new_message_is_attempted() -> None:
    request = request_of()
    assert decide(None, request) == Attempt(request, None)


IGNORED, PUBLISHED, ATTEMPTED = Ignore, Publish, Attempt


@pytest.mark.parametrize(
    ("state", "recorded", "requested", "decision"),
    [
        # The outcome of this step is recorded.
        (DeliveryState.SENT, FIRST, FIRST, PUBLISHED),
        (DeliveryState.RETRYING, FIRST, FIRST, PUBLISHED),
        (DeliveryState.DEFERRED, FIRST, FIRST, PUBLISHED),
        (DeliveryState.FAILED, FIRST, FIRST, PUBLISHED),
        (DeliveryState.EXPIRED, FIRST, FIRST, PUBLISHED),
        (DeliveryState.CANCELED, FIRST, FIRST, PUBLISHED),
        # The attempt was not used up, and the message has kept its place.
        (DeliveryState.RELEASED, FIRST, FIRST, ATTEMPTED),
        # The next step is due.
        (DeliveryState.RETRYING, FIRST, SECOND_ATTEMPT, ATTEMPTED),
        (DeliveryState.DEFERRED, FIRST, DEFERRED, ATTEMPTED),
        (DeliveryState.RELEASED, FIRST, SECOND_ATTEMPT, ATTEMPTED),
        # There is no next step. An acceptance may have been recorded instead of the step that led to it.
        (DeliveryState.SENT, FIRST, SECOND_ATTEMPT, PUBLISHED),
        (DeliveryState.SENT, SECOND_ATTEMPT, FIRST, PUBLISHED),
        (DeliveryState.FAILED, FIRST, SECOND_ATTEMPT, IGNORED),
        (DeliveryState.EXPIRED, FIRST, DEFERRED, IGNORED),
        # The step was taken long ago.
        (DeliveryState.FAILED, SECOND_ATTEMPT, FIRST, IGNORED),
        (DeliveryState.FAILED, REPLAYED, FIRST, IGNORED),
        # A replay sends a message that certainly was not sent.
        (DeliveryState.FAILED, SECOND_ATTEMPT, REPLAYED, ATTEMPTED),
        (DeliveryState.EXPIRED, DEFERRED, REPLAYED, ATTEMPTED),
        (DeliveryState.RETRYING, FIRST, REPLAYED, ATTEMPTED),
        (DeliveryState.SENT, SECOND_ATTEMPT, REPLAYED, PUBLISHED),
        # A message that is cancelled remains so.
        (DeliveryState.CANCELED, SECOND_ATTEMPT, FIRST, PUBLISHED),
        (DeliveryState.CANCELED, FIRST, DEFERRED, PUBLISHED),
        (DeliveryState.CANCELED, FIRST, REPLAYED, PUBLISHED),
    ],
)
def test_the_ledger_determines_the_decision(
    state: DeliveryState,
    recorded: tuple[int, int, int],
    requested: tuple[int, int, int],
    decision: type[Decision],
) -> None:
    entry, request = entry_of(state, recorded), request_of(requested)
    expected = {
        Ignore: Ignore(),
        Publish: Publish(request, entry),
        Attempt: Attempt(request, None),
    }
    assert decide(entry, request) == expected[decision]


@pytest.mark.parametrize(
    ("state", "decision"),
    [
        (DeliveryState.CLAIMED, Attempt),
        (DeliveryState.RELEASED, Attempt),
        (DeliveryState.RETRYING, Publish),
        (DeliveryState.DEFERRED, Publish),
    ],
)
def test_an_old_request_stands_in_for_the_step_that_the_message_has_reached(
    state: DeliveryState, decision: type[Attempt | Publish]
) -> None:
    reached = request_of(SECOND_ATTEMPT, errors=[error_of(request_of())])
    entry = LedgerEntry.of(reached, state, NOW - LEASE, provider="keyed")

    decided = decide(entry, request_of(expires_at=NOW - SECOND))

    assert isinstance(decided, decision)
    assert decided.request == reached


@pytest.mark.parametrize(
    ("age", "connected_for", "wait"),
    [
        (0, 3_600, 28),
        (27, 3_600, 1),
        (28, 3_600, None),
        (28, 4, 6),  # the other process may be about to record its result
        (20, 4, 8),
        (28, 10, None),
    ],
)
def test_a_claim_is_respected_until_its_process_must_be_dead(
    age: int, connected_for: int, wait: int | None
) -> None:
    entry = entry_of(DeliveryState.CLAIMED, at=NOW - age * SECOND, provider="keyed")
    facts = replace(FACTS, connected_for=connected_for * SECOND)

    expected = Attempt(request_of(), "keyed") if wait is None else Wait(NOW + wait * SECOND)
    assert decide(entry, request_of(), facts) == expected


@pytest.mark.parametrize(
    ("provider", "on_ambiguous", "step", "is_sent"),
    [
        ("keyed", OnAmbiguous.FAIL, FIRST, True),
        ("other", OnAmbiguous.FAIL, FIRST, False),
        ("other", OnAmbiguous.RESEND, FIRST, True),
        ("other", OnAmbiguous.FAIL, REPLAYED, True),
    ],
)
def test_a_message_that_a_provider_may_have_is_resent_only_if_that_is_intended(
    provider: str, on_ambiguous: OnAmbiguous, step: tuple[int, int, int], *, is_sent: bool
) -> None:
    request = request_of(step)
    entry = entry_of(DeliveryState.CLAIMED, at=NOW - LEASE, provider=provider)

    decision = replace(POLICY, on_ambiguous=on_ambiguous).decide(entry, request, NOW, FACTS)

    if is_sent:
        assert decision == Attempt(request, provider)
        return
    assert isinstance(decision, Record)
    assert (decision.entry.state, decision.entry.in_doubt_at) == (DeliveryState.FAILED, provider)
    assert decision.entry.error
    assert decision.entry.error.code == "ambiguous"


@pytest.mark.parametrize(
    ("state", "generation", "is_sent"),
    [
        (DeliveryState.RELEASED, 1, True),
        (DeliveryState.DEFERRED, 1, True),
        (DeliveryState.RELEASED, 0, False),
        (DeliveryState.CLAIMED, 1, False),  # the replay itself may have been sent
    ],
)
def test_a_replay_that_was_postponed_is_sent_nevertheless(
    state: DeliveryState, generation: int, *, is_sent: bool
) -> None:
    request = request_of((generation, 1, 0))
    entry = LedgerEntry.of(request, state, NOW - LEASE, provider="other", in_doubt_at="other")
    due = next_request(request, entry) if state is DeliveryState.DEFERRED else request

    assert isinstance(decide(entry, due), Attempt if is_sent else Record)


@pytest.mark.parametrize("state", [DeliveryState.RETRYING, DeliveryState.DEFERRED, DeliveryState.RELEASED])
def test_doubt_about_the_outcome_persists(state: DeliveryState) -> None:
    request = next_request(request_of(), entry_of(state, error=error_of(request_of())))
    assert decide(entry_of(state, in_doubt_at="keyed"), request) == Attempt(request, "keyed")


@pytest.mark.parametrize("entry", [None, entry_of(DeliveryState.RELEASED, in_doubt_at="keyed")])
def test_a_message_expires(entry: LedgerEntry | None) -> None:
    request = request_of(expires_at=NOW)

    doubt = entry and entry.in_doubt_at
    expired = LedgerEntry.of(request, DeliveryState.EXPIRED, NOW, in_doubt_at=doubt)
    assert decide(entry, request) == Record(request, expired)


@pytest.mark.parametrize(
    ("step", "delay", "is_deferred"),
    [
        (FIRST, 1, True),
        (REPLAYED, 1, True),
        (FIRST, 0, False),
        (DEFERRED, 1, False),  # it is due by the clock of NATS
        (SECOND_ATTEMPT, 1, False),
    ],
)
def test_a_scheduled_message_is_deferred_until_its_time(
    step: tuple[int, int, int], delay: int, *, is_deferred: bool
) -> None:
    send_at = NOW + delay * SECOND
    request = request_of(step, message=MESSAGE.model_copy(update={"send_at": send_at}))

    deferred = LedgerEntry.of(request, DeliveryState.DEFERRED, NOW, due=send_at)
    expected = Record(request, deferred) if is_deferred else Attempt(request, None)
    assert decide(None, request) == expected


# --- Outcomes ---


def after(
    failure: ProviderError, request: DeliveryRequest | None = None, *, at: str = "other", facts: Facts = FACTS
) -> LedgerEntry:
    request = request or request_of()
    claim = LedgerEntry.of(request, DeliveryState.CLAIMED, NOW, provider=at)
    entry = POLICY.after_failure(request, claim, failure, NOW, facts)
    assert entry.error
    assert (entry.error.attempt, entry.error.code) == (request.attempt, failure.code)
    assert entry.step == request.step
    return entry


@pytest.mark.parametrize(
    ("kind", "provider", "state", "in_doubt_at"),
    [
        (NotReachedError, "other", DeliveryState.RETRYING, None),
        (TemporaryError, "other", DeliveryState.RETRYING, None),
        (RejectedError, "keyed", DeliveryState.FAILED, None),
        (CredentialsError, "other", DeliveryState.DEFERRED, None),
        (UnknownOutcomeError, "keyed", DeliveryState.RETRYING, "keyed"),
        (UnknownOutcomeError, "other", DeliveryState.FAILED, "other"),
    ],
)
@pytest.mark.parametrize("facts", [FACTS, IN_PLACE])
def test_the_kind_of_failure_determines_the_outcome(
    kind: type[ProviderError], provider: str, state: DeliveryState, in_doubt_at: str | None, facts: Facts
) -> None:
    entry = after(kind("code", "detail"), at=provider, facts=facts)

    assert (entry.state, entry.in_doubt_at) == (state, in_doubt_at)
    assert (entry.due is not None) == (state in {DeliveryState.RETRYING, DeliveryState.DEFERRED})


@pytest.mark.parametrize("attempt", [1, len(DEFAULT_RETRY_DELAYS) + 1])
def test_a_throttled_message_uses_up_no_attempt(attempt: int) -> None:
    request = request_of((0, attempt, 0))
    failure = TemporaryError("http_429", "detail", retry_after=timedelta(minutes=5), throttled=True)

    in_place, moved = after(failure, request, facts=IN_PLACE), after(failure, request)

    assert (in_place.state, in_place.due) == (DeliveryState.RELEASED, NOW + timedelta(minutes=5))
    assert in_place.next_step == request.step
    assert moved.state is DeliveryState.DEFERRED
    assert moved.due
    assert NOW + timedelta(minutes=5) <= moved.due
    assert moved.next_step == request.step.deferred


def test_a_message_that_the_provider_may_have_is_never_released() -> None:
    failure = UnknownOutcomeError("http_503", "detail", throttled=True)
    assert after(failure, at="keyed", facts=IN_PLACE).state is DeliveryState.RETRYING


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 5), (3, 15), (4, 60), (5, 300), (9, 3_600)])
def test_delays_vary_by_a_fifth(attempt: int, seconds: int) -> None:
    due = after(TemporaryError("code", "detail"), request_of((0, attempt, 0))).due
    assert due is not None
    assert 0.8 * seconds <= (due - NOW).total_seconds() <= 1.2 * seconds


def test_the_last_attempt_fails() -> None:
    request = request_of((0, len(DEFAULT_RETRY_DELAYS) + 1, 0))
    assert after(TemporaryError("code", "detail"), request).state is DeliveryState.FAILED


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2)), st.integers(1, 9))
def test_the_next_attempt_is_as_late_as_the_provider_requests_until_the_message_expires(
    requested: timedelta, attempt: int
) -> None:
    failure = TemporaryError("code", "detail", retry_after=requested)
    due = after(failure, request_of((0, attempt, 0))).due
    assert due is not None
    assert min(NOW + requested, EXPIRY) <= due <= EXPIRY


@given(st.integers(0, 100), st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=1)))
def test_a_message_is_deferred_until_after_the_next_probe(deferral_count: int, blocked: timedelta) -> None:
    request = request_of((0, 1, deferral_count))
    claim = LedgerEntry.of(request, DeliveryState.CLAIMED, NOW, provider="keyed")
    due = POLICY.deferral(request, claim, NOW, not_before=NOW + blocked).due
    assert due is not None
    assert NOW + blocked < due <= NOW + blocked + timedelta(seconds=360)


@pytest.mark.parametrize("kind", [TemporaryError, CredentialsError])
def test_nothing_is_due_after_the_message_expires(kind: type[ProviderError]) -> None:
    request = request_of(expires_at=NOW + SECOND / 10)
    assert after(kind("code", "detail"), request).due == request.expires_at


def test_a_release_takes_precedence_over_the_earliest_deferral() -> None:
    early = entry_of(DeliveryState.DEFERRED, due=NOW + SECOND)
    late = entry_of(DeliveryState.DEFERRED, due=NOW + 2 * SECOND)
    released = entry_of(DeliveryState.RELEASED)

    assert postponement([late, early]) is early
    assert postponement([late, released, early]) is released


IN_DOUBT = [
    DeliveryState.CLAIMED,
    DeliveryState.RELEASED,
    DeliveryState.RETRYING,
    DeliveryState.DEFERRED,
    DeliveryState.FAILED,
    DeliveryState.EXPIRED,
]


@pytest.mark.parametrize("state", IN_DOUBT)
@pytest.mark.parametrize("step", [FIRST, SECOND_ATTEMPT, REPLAYED])
def test_an_acceptance_corrects_whatever_was_recorded_in_doubt(
    state: DeliveryState, step: tuple[int, int, int]
) -> None:
    recorded = entry_of(state, step, provider="other", in_doubt_at="other")
    correction = entry_of(DeliveryState.SENT, provider="other").correct(recorded)

    assert correction
    assert (correction.state, correction.step) == (DeliveryState.SENT, Step(*step))


@pytest.mark.parametrize(
    "recorded",
    [
        entry_of(DeliveryState.SENT, in_doubt_at="other"),
        entry_of(DeliveryState.CANCELED),
        entry_of(DeliveryState.FAILED),
    ],
)
def test_an_acceptance_corrects_no_certainty(recorded: LedgerEntry) -> None:
    assert entry_of(DeliveryState.SENT).correct(recorded) is None


@pytest.mark.parametrize("state", [state for state in DeliveryState if state is not DeliveryState.SENT])
def test_nothing_else_corrects_an_entry(state: DeliveryState) -> None:
    recorded = [entry_of(each, in_doubt_at="other") for each in DeliveryState]
    assert not any(entry_of(state).correct(each) for each in recorded)


@pytest.mark.parametrize(
    ("state", "step", "errors"),
    [(DeliveryState.RETRYING, SECOND_ATTEMPT, 1), (DeliveryState.DEFERRED, DEFERRED, 0)],
)
def test_the_next_request_has_the_errors_of_the_attempts_that_were_used_up(
    state: DeliveryState, step: tuple[int, int, int], errors: int
) -> None:
    request = request_of()
    following = next_request(request, entry_of(state, error=error_of(request)))
    assert (following.step, len(following.errors)) == (step, errors)


# --- Before sending ---


OPT_OUT = SuppressionChange(
    channel=Channel.SMS,
    theirs=messages.BOB,
    state=SuppressionState.OPTED_OUT,
    source=SuppressionSource.KEYWORD,
    occurred_at=NOW,
)


def test_a_message_whose_recipient_has_opted_out_fails_without_naming_a_provider() -> None:
    claim = entry_of(DeliveryState.CLAIMED, provider="keyed")

    entry = refusal(request_of(), claim, OPT_OUT)

    assert entry
    assert entry.error
    assert (entry.state, entry.provider, entry.error.provider) == (DeliveryState.FAILED, None, None)
    assert (entry.error.code, entry.error.detail) == (
        "opted_out",
        "the recipient opted out on 2026-01-01T00:00:00+00:00: keyword",
    )


def test_a_message_that_has_expired_in_the_meantime_is_not_sent() -> None:
    claim = entry_of(DeliveryState.CLAIMED, at=EXPIRY, provider="keyed")
    entry = refusal(request_of(), claim, OPT_OUT)
    assert entry
    assert (entry.state, entry.provider) == (DeliveryState.EXPIRED, None)


def test_any_other_message_may_be_sent() -> None:
    assert refusal(request_of(), entry_of(DeliveryState.CLAIMED), None) is None


@dataclass(frozen=True)
class Provider:
    honours_idempotency_keys: bool


KEYED, OTHER, LAST = Provider(honours_idempotency_keys=True), Provider(False), Provider(False)


@pytest.mark.parametrize(
    ("in_doubt_at", "expected"),
    [
        (None, [OTHER, KEYED, LAST]),
        (KEYED, [KEYED]),
        (LAST, [LAST, OTHER, KEYED]),
    ],
)
def test_the_provider_that_may_have_the_message_is_asked_first(
    in_doubt_at: Provider | None, expected: list[Provider]
) -> None:
    found = candidates([OTHER, KEYED, LAST], in_doubt_at)
    assert [id(each) for each in found] == [id(each) for each in expected]


# --- Cancelling and replaying ---


@pytest.mark.parametrize(
    ("entry", "status", "generation", "step"),
    [
        (None, Status.ACCEPTED, 0, FIRST),
        (None, Status.RETRYING, 2, (2, 1, 0)),
        (entry_of(DeliveryState.RETRYING), Status.RETRYING, 0, SECOND_ATTEMPT),
        (entry_of(DeliveryState.DEFERRED), Status.SCHEDULED, 0, DEFERRED),
        (entry_of(DeliveryState.RELEASED), Status.ACCEPTED, 0, FIRST),
        (entry_of(DeliveryState.FAILED), Status.ACCEPTED, 1, REPLAYED),
        (entry_of(DeliveryState.EXPIRED), Status.ACCEPTED, 1, REPLAYED),
    ],
)
def test_a_waiting_message_can_be_cancelled(
    entry: LedgerEntry | None, status: Status, generation: int, step: tuple[int, int, int]
) -> None:
    canceled = cancellation(entry, status, generation, NOW)
    assert (canceled.state, canceled.step, canceled.at) == (DeliveryState.CANCELED, step, NOW)


def test_cancelling_again_changes_nothing() -> None:
    entry = entry_of(DeliveryState.CANCELED)
    assert cancellation(entry, Status.CANCELED, 0, NOW + SECOND) is entry


@pytest.mark.parametrize(
    ("entry", "status", "generation", "in_doubt"),
    [
        (None, Status.SENT, 0, False),
        (None, Status.EXPIRED, 0, False),
        (entry_of(DeliveryState.CLAIMED), Status.ACCEPTED, 0, False),
        (entry_of(DeliveryState.SENT), Status.ACCEPTED, 1, False),
        (entry_of(DeliveryState.FAILED), Status.FAILED, 0, False),
        (entry_of(DeliveryState.FAILED, in_doubt_at="other"), Status.ACCEPTED, 1, False),
        (entry_of(DeliveryState.RETRYING, in_doubt_at="keyed"), Status.RETRYING, 0, True),
        (entry_of(DeliveryState.RELEASED, in_doubt_at="keyed"), Status.ACCEPTED, 0, True),
    ],
)
def test_a_message_that_may_have_been_sent_cannot_be_cancelled(
    entry: LedgerEntry | None, status: Status, generation: int, *, in_doubt: bool
) -> None:
    with pytest.raises(NotCancelableError) as error:
        cancellation(entry, status, generation, NOW)
    assert error.value.in_doubt is in_doubt


def test_a_replay_starts_over_in_the_next_generation() -> None:
    failed = request_of((1, 3, 2), errors=[error_of(request_of())], caller="support")

    replayed = replay(failed, timedelta(hours=1), NOW)

    assert (replayed.message, replayed.caller) == (failed.message, "support")
    assert (replayed.step, replayed.errors) == ((2, 1, 0), [])
    assert replayed.expires_at == NOW + timedelta(hours=1)
