from datetime import UTC, datetime, timedelta

from services.sender.circuit_breaker import CircuitBreaker

PAUSE = timedelta(seconds=30)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def make() -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    return CircuitBreaker(failures=3, pause=PAUSE, clock=clock), clock


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_it_opens_after_failures_in_a_row() -> None:
    breaker, clock = make()
    fail(breaker, 2)
    assert breaker.blocked_until() is None
    fail(breaker, 1)
    assert breaker.blocked_until() == clock.now + PAUSE


def test_it_can_be_looked_at_without_asking() -> None:
    breaker, clock = make()
    assert not breaker.lets_nobody_through
    fail(breaker, 3)
    assert breaker.lets_nobody_through
    clock.now += PAUSE
    assert not breaker.lets_nobody_through
    assert breaker.blocked_until() is None
    assert breaker.lets_nobody_through


def test_a_success_in_between_counts() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.blocked_until() is None


def test_after_the_pause_one_message_probes_and_the_others_wait() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    assert breaker.blocked_until() is None
    assert breaker.blocked_until() == clock.now + PAUSE


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    breaker.blocked_until()
    breaker.succeeded()
    assert breaker.blocked_until() is None
    assert not breaker.is_open


def test_a_probe_that_fails_leaves_it_open_for_another_pause() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    breaker.blocked_until()
    breaker.failed()
    assert breaker.blocked_until() == clock.now + PAUSE


def test_a_probe_that_never_reports_does_not_keep_it_open_for_ever() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    breaker.blocked_until()
    clock.now += PAUSE
    assert breaker.blocked_until() is None
