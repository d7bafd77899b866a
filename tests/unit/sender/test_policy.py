"""The consequences of failures; whole deliveries are in the tests of interleavings."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from services.sender.policy import DeliveryPolicy
from services.sender.settings import OnAmbiguous
from shared.channels import Channel
from shared.ledger import DeliveryState, LedgerEntry
from shared.message import AttemptError, DeliveryRequest
from shared.providers.base import (
    CredentialsError,
    NotReachedError,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRY = NOW + timedelta(hours=4)
POLICY = DeliveryPolicy(
    delays=[timedelta(seconds=10)] * 2,
    on_ambiguous=OnAmbiguous.FAIL,
    clock=lambda: NOW,
    random=Random(0),
)


def entry_after(
    failure: ProviderError, *, may_repeat: bool = False, attempt: int = 1, expires_at: datetime = EXPIRY
) -> LedgerEntry:
    request = messages.request(attempt=attempt, expires_at=expires_at)
    error = AttemptError(attempt=attempt, code=failure.code, detail=str(failure), provider="first", at=NOW)
    entry = POLICY.after_failure(request, claim_of(request), failure, error, may_repeat=may_repeat)
    assert entry.error == error
    return entry


def claim_of(request: DeliveryRequest) -> LedgerEntry:
    return LedgerEntry.of(request, DeliveryState.CLAIMED, NOW, provider="first")


@pytest.mark.parametrize(
    ("kind", "may_repeat", "state", "in_doubt_at"),
    [
        (NotReachedError, False, DeliveryState.RETRYING, None),
        (TemporaryError, False, DeliveryState.RETRYING, None),
        (RejectedError, True, DeliveryState.FAILED, None),
        (CredentialsError, False, DeliveryState.DEFERRED, None),
        (UnknownOutcomeError, True, DeliveryState.RETRYING, "first"),
        (UnknownOutcomeError, False, DeliveryState.FAILED, "first"),
    ],
)
def test_the_kind_of_failure_decides(
    kind: type[ProviderError], state: DeliveryState, in_doubt_at: str | None, *, may_repeat: bool
) -> None:
    entry = entry_after(kind("code", "detail"), may_repeat=may_repeat)

    assert (entry.state, entry.in_doubt_at) == (state, in_doubt_at)
    assert (entry.due is not None) == (state in {DeliveryState.RETRYING, DeliveryState.DEFERRED})


@pytest.mark.parametrize(("attempt", "state"), [(2, DeliveryState.RETRYING), (3, DeliveryState.FAILED)])
def test_the_last_attempt_fails(attempt: int, state: DeliveryState) -> None:
    assert entry_after(TemporaryError("code", "detail"), attempt=attempt).state is state


def test_the_next_attempt_is_as_late_as_the_provider_requests() -> None:
    failure = TemporaryError("code", "detail", retry_after=timedelta(minutes=5))

    assert entry_after(failure).due == NOW + timedelta(minutes=5)


@pytest.mark.parametrize("kind", [TemporaryError, CredentialsError])
def test_nothing_is_due_after_the_message_expires(kind: type[ProviderError]) -> None:
    soon = NOW + timedelta(seconds=1)

    assert entry_after(kind("code", "detail"), expires_at=soon).due == soon


@pytest.mark.parametrize(
    ("on_ambiguous", "honours_keys", "may_repeat"),
    [
        (OnAmbiguous.FAIL, False, False),
        (OnAmbiguous.FAIL, True, True),
        (OnAmbiguous.RESEND, False, True),
        (OnAmbiguous.RESEND, True, True),
    ],
)
def test_a_request_may_be_repeated_with_a_key_or_if_so_configured(
    on_ambiguous: OnAmbiguous, *, honours_keys: bool, may_repeat: bool
) -> None:
    policy = DeliveryPolicy(delays=[], on_ambiguous=on_ambiguous)

    assert policy.may_repeat(honours_idempotency_keys=honours_keys) is may_repeat


def test_the_error_of_a_suppressed_message_names_no_provider() -> None:
    request = messages.request()
    change = SuppressionChange(
        channel=Channel.SMS,
        theirs=messages.BOB,
        state=SuppressionState.OPTED_OUT,
        source=SuppressionSource.KEYWORD,
        occurred_at=NOW,
    )
    entry = POLICY.suppressed(request, claim_of(request), change)

    assert entry.error
    assert (entry.state, entry.provider, entry.error.provider) == (DeliveryState.FAILED, None, None)
    assert (entry.error.code, entry.error.detail) == (
        "opted_out",
        "the recipient opted out on 2026-01-01T00:00:00+00:00: keyword",
    )
