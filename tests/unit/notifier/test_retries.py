from datetime import timedelta

import pytest

from services.notifier.retries import next_delay
from services.notifier.settings import DEFAULT_RETRY_DELAYS

DELAYS = tuple(timedelta(seconds=seconds) for seconds in DEFAULT_RETRY_DELAYS)
MIDDLE = 0.5


def delay_after(
    attempt: int, *, retry_after: timedelta | None = None, random: float = MIDDLE
) -> timedelta | None:
    return next_delay(attempt, DELAYS, retry_after=retry_after, random=lambda: random)


def test_the_delays_take_three_days() -> None:
    delays = [delay_after(attempt) for attempt in range(1, len(DELAYS) + 1)]
    assert delays == list(DELAYS)
    assert sum(DELAYS, timedelta()) // timedelta(days=1) == 3


def test_after_the_last_attempt_there_is_no_other() -> None:
    assert delay_after(len(DELAYS) + 1) is None
    assert delay_after(len(DELAYS) + 1, retry_after=timedelta(hours=1)) is None


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 270), (1.0, 330)])
def test_a_delay_varies_by_a_tenth(random: float, seconds: float) -> None:
    assert delay_after(2, random=random) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("asked", "expected"), [(1, 5), (60, 60)])
def test_retry_after_only_makes_a_delay_longer(asked: int, expected: int) -> None:
    assert delay_after(1, retry_after=timedelta(seconds=asked)) == timedelta(seconds=expected)
