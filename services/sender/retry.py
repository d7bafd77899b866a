"""When to try again: plain functions over a schedule that is data."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

DEFAULT_DELAYS: tuple[timedelta, ...] = tuple(
    timedelta(seconds=seconds) for seconds in (1, 5, 15, 60, 300, 900, 1_800, 3_600, 3_600)
)
"""Between the attempts: ten attempts in somewhat less than three hours."""

DEFERRAL_DELAYS: tuple[timedelta, ...] = tuple(
    timedelta(seconds=seconds) for seconds in (5, 15, 30, 60, 120, 300)
)
"""Between looks at a provider that is left alone; the last one repeats."""

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
    """Tell when the attempt after `attempt` is due.

    The delay varies by a fifth either way, is never shorter than the provider asked for, and ends when the
    message expires.

    Returns:
        None when `attempt` was the last one.
    """
    if attempt > len(delays):
        return None
    delay = max(_with_jitter(delays[attempt - 1], random), retry_after or timedelta(0))
    return min(now + delay, expires_at)


def next_look_at(deferral_count: int, *, not_before: datetime, now: datetime, random: Random) -> datetime:
    """Tell when a message that was put off `deferral_count` times before should look at its provider again."""
    delay = DEFERRAL_DELAYS[min(deferral_count, len(DEFERRAL_DELAYS) - 1)]
    return max(now, not_before) + _with_jitter(delay, random)


def _with_jitter(delay: timedelta, random: Random) -> timedelta:
    return delay * random.uniform(1 - _JITTER, 1 + _JITTER)
