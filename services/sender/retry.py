"""The times of the next attempts, as pure functions of a retry schedule."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

DEFERRAL_DELAYS: tuple[timedelta, ...] = tuple(
    timedelta(seconds=seconds) for seconds in (5, 15, 30, 60, 120, 300)
)
"""Between one deferral of a message and the next; the last delay repeats."""

_JITTER = 0.2


def next_attempt_at(
    attempt: int,
    *,
    delays: Sequence[timedelta],
    retry_after: timedelta | None,
    now: datetime,
    expires_at: datetime,
    random: Random,
) -> datetime | None:
    """Return the time of the attempt after `attempt`, or None if that was the last one.

    The delay varies by a fifth either way, is never shorter than the provider requested, and ends when the
    message expires.
    """
    if attempt > len(delays):
        return None
    delay = max(_with_jitter(delays[attempt - 1], random), retry_after or timedelta(0))
    return min(now + delay, expires_at)


def next_deferral_at(deferral_count: int, *, not_before: datetime, now: datetime, random: Random) -> datetime:
    """Return the time until which to defer a message that has been deferred `deferral_count` times."""
    delay = DEFERRAL_DELAYS[min(deferral_count, len(DEFERRAL_DELAYS) - 1)]
    return max(now, not_before) + _with_jitter(delay, random)


def _with_jitter(delay: timedelta, random: Random) -> timedelta:
    return delay * random.uniform(1 - _JITTER, 1 + _JITTER)
