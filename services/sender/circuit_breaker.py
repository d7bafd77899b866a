"""A circuit breaker: leaves a provider alone that fails, and tries it now and then."""

from collections.abc import Callable
from datetime import datetime, timedelta


class CircuitBreaker:
    """Opens after failures in a row, lets one message through after a pause, and closes on a success.

    Args:
        failures: how many in a row open it.
        pause: how long it stays open before a message may probe.
        clock: tells the time, with a time zone.
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
    def lets_nobody_through(self) -> bool:
        """Tell whether whoever asked now would be told to wait."""
        return self._open_until is not None and self._clock() < self._open_until

    def blocked_until(self) -> datetime | None:
        """Ask for permission to send.

        Returns:
            None for yes. While the breaker is open that is the answer to one message a pause, the probe;
            the others are told when to ask again.
        """
        now = self._clock()
        if self._open_until is None:
            return None
        if now < self._open_until:
            return self._open_until
        self._open_until = now + self._pause
        return None

    def succeeded(self) -> None:
        self._failures = 0
        self._open_until = None

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= self._threshold:
            self.open()

    def open(self) -> None:
        """Leave the provider alone from now on, whatever the count."""
        self._open_until = self._clock() + self._pause
