from datetime import timedelta

from services.sender.circuit_breaker import CircuitBreaker, Permission

PAUSE = 30.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    return CircuitBreaker(failures=3, pause=timedelta(seconds=PAUSE), clock=clock), clock


def acquire(breaker: CircuitBreaker) -> Permission:
    permission = breaker.try_acquire()
    assert permission is not None
    return permission


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        acquire(breaker).record_failure()


def test_it_opens_after_failures_in_a_row() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    assert breaker.try_acquire()
    assert not breaker.is_open
    fail(breaker, 1)
    assert not breaker.try_acquire()
    assert breaker.is_open
    assert breaker.seconds_left == PAUSE


def test_a_success_resets_the_count() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    acquire(breaker).record_success()
    fail(breaker, 2)
    assert breaker.try_acquire()


def test_it_can_be_opened_whatever_the_count() -> None:
    breaker, _ = make()
    breaker.open()
    assert not breaker.try_acquire()
    assert breaker.seconds_left == PAUSE


def test_it_can_be_opened_until_a_certain_time() -> None:
    breaker, clock = make()
    breaker.open(clock.now + 600)
    breaker.open(clock.now + 5)
    clock.now += 599
    assert (breaker.try_acquire(), breaker.seconds_left) == (None, 1)
    clock.now += 1
    assert breaker.try_acquire()


def test_questions_change_nothing() -> None:
    breaker, clock = make()
    assert breaker.can_acquire
    fail(breaker, 3)
    assert not breaker.can_acquire
    clock.now += PAUSE
    for _ in range(2):
        assert breaker.can_acquire
        assert breaker.is_open
        assert breaker.seconds_left == 0
    assert breaker.try_acquire()
    assert not breaker.can_acquire


def test_after_the_pause_one_message_probes_and_the_others_wait() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    assert breaker.try_acquire()
    assert not breaker.try_acquire()
    assert breaker.seconds_left == PAUSE


def test_a_successful_probe_closes_it() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    acquire(breaker).record_success()
    assert breaker.try_acquire()
    assert not breaker.is_open


def test_a_failed_probe_leaves_it_open_for_another_pause() -> None:
    breaker, clock = make()
    breaker.open()
    clock.now += PAUSE
    acquire(breaker).record_failure()
    assert not breaker.try_acquire()
    assert breaker.seconds_left == PAUSE


def test_a_probe_that_is_given_back_allows_another_one_immediately() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    acquire(breaker).release()
    assert breaker.is_open
    assert breaker.try_acquire()


def test_giving_back_has_no_effect_after_an_outcome_or_during_another_probe() -> None:
    breaker, clock = make()
    earlier = acquire(breaker)
    fail(breaker, 3)
    clock.now += PAUSE
    probe = acquire(breaker)
    earlier.release()
    assert not breaker.try_acquire()
    probe.record_failure()
    probe.release()
    assert not breaker.try_acquire()


def test_a_request_from_before_a_pause_does_not_end_it() -> None:
    breaker, clock = make()
    earlier = acquire(breaker)
    breaker.open(clock.now + 600)
    earlier.record_success()
    assert breaker.seconds_left == 600


def test_the_pause_after_a_probe_may_be_shorter_than_usual() -> None:
    breaker, clock = make()
    breaker.open()
    clock.now += PAUSE
    acquire(breaker)
    breaker.open(clock.now + 1)
    assert breaker.seconds_left == 1


def test_a_probe_that_never_reports_does_not_keep_it_open_forever() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += PAUSE
    breaker.try_acquire()
    clock.now += PAUSE
    assert breaker.try_acquire()
