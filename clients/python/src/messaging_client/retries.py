"""The rules for repeating requests."""

import random

import httpx

from messaging_client.errors import ProblemError

_TEMPORARY = {429, 502, 503, 504}
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0


def is_temporary(error: ProblemError | httpx.TransportError) -> bool:
    """Return whether the same request may succeed later."""
    return isinstance(error, httpx.TransportError) or error.status in _TEMPORARY


def delay_after(error: ProblemError | httpx.TransportError, failures: int) -> float:
    """Return the seconds to wait after a failure: what the service asks for, or more each time."""
    if isinstance(error, ProblemError) and error.retry_after is not None:
        return error.retry_after
    delay = min(_FIRST_DELAY * 2.0 ** (failures - 1), _LONGEST_DELAY)
    return delay * random.uniform(0.5, 1)
