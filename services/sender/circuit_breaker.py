"""A circuit breaker: keeps messages from a provider that fails, and probes it from time to time."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic


class CircuitBreaker:
    """Opens after several failures in a row, admits one probe after each pause, and closes if it succeeds.

    While it is open, only the outcome of the probe counts. Requests that were made before say nothing about
    the time after the pause.

    Args:
        failures: the number of failures in a row that opens it.
        pause: how long it stays open before each probe.
        clock: returns monotonic seconds.
    """

    def __init__(self, *, failures: int, pause: timedelta, clock: Callable[[], float] = monotonic) -> None:
        self._threshold = failures
        self._pause = pause.total_seconds()
        self.clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probe: Permission | None = None
        self._probe_until = 0.0

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    @property
    def can_acquire(self) -> bool:
        """Whether `try_acquire` would succeed now."""
        return self.seconds_left <= 0

    @property
    def seconds_left(self) -> float:
        """The seconds until `try_acquire` can succeed."""
        if self._open_until is None:
            return 0
        until = max(self._open_until, self._probe_until) if self._probe else self._open_until
        return max(until - self.clock(), 0)

    def try_acquire(self) -> "Permission | None":
        """Acquire the permission to make a request, or return None.

        While the breaker is open, one request after each pause gets it: the probe. If a probe never reports
        its outcome, another request becomes the probe after a pause.
        """
        if not self.can_acquire:
            return None
        permission = Permission(self)
        if self.is_open:
            self._probe, self._probe_until = permission, self.clock() + self._pause
        return permission

    def open(self, until: float | None = None) -> None:
        """Open regardless of the number of failures.

        Args:
            until: the time of the next probe, according to the clock; by default, after a pause.
        """
        until = self.clock() + self._pause if until is None else until
        self._open_until = max(until, self._open_until or until)
        self._probe = None

    def report(self, permission: "Permission", *, success: bool) -> None:
        """Record the outcome of a request."""
        if self.is_open and permission is not self._probe:
            return
        self._probe = None
        if success:
            self._failures = 0
            self._open_until = None
            return
        self._failures += 1
        if self._failures >= self._threshold or self.is_open:
            self.open()

    def give_back(self, permission: "Permission") -> None:
        """Let another request become the probe if this permission is that of a probe without an outcome."""
        if permission is self._probe:
            self._probe = None


class Permission:
    """The permission to make one request."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def record_success(self) -> None:
        self._breaker.report(self, success=True)

    def record_failure(self) -> None:
        self._breaker.report(self, success=False)

    def release(self) -> None:
        """Give the permission back. This has no effect after an outcome has been recorded."""
        self._breaker.give_back(self)
