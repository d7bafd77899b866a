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
        breaker.record_failure()


def test_it_opens_after_failures_in_a_row() -> None:
    breaker, clock = make()
    fail(breaker, 2)
    assert breaker.try_acquire()
    assert not breaker.is_open
    fail(breaker, 1)
    assert not breaker.try_acquire()
    assert breaker.is_open
    assert breaker.retry_at == clock.now + PAUSE


def test_a_success_resets_the_count() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    breaker.record_success()
    fail(breaker, 2)
    assert breaker.try_acquire()


def test_it_can_be_opened_whatever_the_count() -> None:
    breaker, _ = make()
    breaker.open()
    assert not breaker.try_acquire()


def test_questions_change_nothing() -> None:
    breaker, clock = make()
    assert breaker.can_acquire
    fail(breaker, 3)
    assert not breaker.can_acquire
    clock.now += PAUSE
    for _ in range(2):
        assert breaker.can_acquire
        assert breaker.is_open
        assert breaker.retry_at == clock.now
    assert breaker.try_acquire()
    assert not breaker.can_acquire


def test_after_the_pause_one_message_probes_and_the_others_wait() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    assert breaker.try_acquire()
    assert not breaker.try_acquire()
    assert breaker.retry_at == clock.now + PAUSE


def test_a_successful_probe_closes_it() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    breaker.try_acquire()
    breaker.record_success()
    assert breaker.try_acquire()
    assert not breaker.is_open


def test_a_failed_probe_leaves_it_open_for_another_pause() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    breaker.try_acquire()
    breaker.record_failure()
    assert not breaker.try_acquire()
    assert breaker.retry_at == clock.now + PAUSE


def test_a_probe_that_never_reports_does_not_keep_it_open_forever() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    breaker.try_acquire()
    clock.now += PAUSE
    assert breaker.try_acquire()
