"""A circuit breaker: keeps messages from a provider that fails, and probes it from time to time."""

from collections.abc import Callable
from datetime import datetime, timedelta


class CircuitBreaker:
    """Opens after several failures in a row, admits one probe per pause, and closes after a success.

    Args:
        failures: the number of failures in a row that opens it.
        pause: how long it stays open before each probe.
        clock: returns the current time, with a time zone.
    """

    def __init__(self, *, failures: int, pause: timedelta, clock: Callable[[], datetime]) -> None:
        self._threshold = failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._open_until: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    @property
    def can_acquire(self) -> bool:
        """Whether `try_acquire` would succeed now."""
        return self._open_until is None or self._clock() >= self._open_until

    @property
    def retry_at(self) -> datetime:
        """The earliest time at which `try_acquire` can succeed."""
        return self._open_until or self._clock()

    def try_acquire(self) -> bool:
        """Acquire the permission to send a message.

        While the breaker is open, one message per pause gets it: the probe.
        """
        now = self._clock()
        if self._open_until is None:
            return True
        if now < self._open_until:
            return False
        # If this probe never reports its outcome, the next one is admitted after another pause.
        self._open_until = now + self._pause
        return True

    def record_success(self) -> None:
        self._failures = 0
        self._open_until = None

    def record_failure(self) -> None:
        self._failures += 1
        if self._failures >= self._threshold:
            self.open()

    def open(self) -> None:
        """Open for a pause, whatever the number of failures."""
        self._open_until = self._clock() + self._pause
