from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sender.retry import next_attempt_at, next_deferral_at
from services.sender.settings import DEFAULT_RETRY_DELAYS

DELAYS = [timedelta(seconds=seconds) for seconds in DEFAULT_RETRY_DELAYS]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=4)


def due(
    attempt: int, *, retry_after: timedelta | None = None, expires_at: datetime = LATER
) -> datetime | None:
    return next_attempt_at(
        attempt,
        delays=DELAYS,
        retry_after=retry_after,
        now=NOW,
        expires_at=expires_at,
        random=Random(1),
    )


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 5), (3, 15), (4, 60), (5, 300), (9, 3_600)])
def test_delays_vary_by_a_fifth(attempt: int, seconds: int) -> None:
    at = due(attempt)
    assert at is not None
    assert 0.8 * seconds <= (at - NOW).total_seconds() <= 1.2 * seconds


def test_there_is_no_attempt_after_the_last() -> None:
    assert due(len(DELAYS) + 1) is None


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2)), st.integers(1, 9))
def test_the_next_attempt_is_as_late_as_the_provider_requests_until_the_message_expires(
    requested: timedelta, attempt: int
) -> None:
    at = due(attempt, retry_after=requested)
    assert at is not None
    assert min(NOW + requested, LATER) <= at <= LATER


@given(st.integers(0, 100), st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=1)))
def test_a_message_is_deferred_until_after_the_next_probe(deferral_count: int, blocked: timedelta) -> None:
    at = next_deferral_at(deferral_count, not_before=NOW + blocked, now=NOW, random=Random(1))
    assert NOW + blocked < at <= NOW + blocked + timedelta(seconds=360)
