"""The schedule of the attempts to deliver an event."""

from collections.abc import Callable, Sequence
from datetime import timedelta

_JITTER = 0.1
"""The share by which a delay may be longer or shorter."""


def next_delay(
    attempt: int,
    delays: Sequence[timedelta],
    *,
    retry_after: timedelta | None,
    random: Callable[[], float],
) -> timedelta | None:
    """Return the time until the next attempt, or None if there is none.

    Args:
        attempt: the number of attempts so far.
        delays: the time after each attempt but the last.
        retry_after: the time that the endpoint has asked for; it can only make the delay longer.
        random: returns a number from 0 to 1.
    """
    if attempt > len(delays):
        return None
    delay = delays[attempt - 1] * (1 + _JITTER * (2 * random() - 1))
    return max(delay, retry_after or timedelta(0))
