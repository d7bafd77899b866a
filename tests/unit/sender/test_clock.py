from datetime import UTC, datetime, timedelta

import pytest

from services.sender.clock import ServerClock
from shared.errors import BusUnavailableError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Host:
    """A host whose monotonic clock is set by the test."""

    def __init__(self) -> None:
        self.monotonic = 1_000.0
        self.clock = ServerClock(clock=lambda: self.monotonic)

    def read(self, time: datetime, *, after: float = 5, delay: float = 0) -> None:
        """Read the time of the server after some seconds; the request and the answer take `delay` each."""
        self.monotonic += after + 2 * delay
        self.clock.set(time, asked_at=self.monotonic - 2 * delay)


async def test_the_time_is_unknown_before_the_first_reading() -> None:
    with pytest.raises(BusUnavailableError):
        Host().clock.now()


async def test_time_passes_between_readings() -> None:
    host = Host()
    host.read(NOON)
    host.monotonic += 90
    assert host.clock.now() == NOON + timedelta(seconds=90)


async def test_half_of_the_time_that_a_reading_takes_has_passed_since() -> None:
    host = Host()
    host.read(NOON, delay=0.25)
    assert host.clock.now() == NOON + timedelta(seconds=0.25)


async def test_a_server_whose_clock_is_wrong_for_six_seconds_changes_nothing() -> None:
    host = Host()
    for number in range(5):
        host.read(NOON + number * timedelta(seconds=5))
    for number in (5, 6):
        host.read(NOON + number * timedelta(seconds=5) + DAY)
    assert host.clock.now() == NOON + timedelta(seconds=30)


async def test_a_clock_that_was_set_is_believed_after_some_readings() -> None:
    host = Host()
    for number in range(8):
        host.read(NOON + number * timedelta(seconds=5) + (DAY if number > 4 else timedelta(0)))
    assert host.clock.now() == NOON + timedelta(seconds=35) + DAY


async def test_the_quickest_of_the_latest_readings_counts() -> None:
    host = Host()
    for delay in (0.2, 0.001, 0.3):
        host.read(NOON + timedelta(seconds=host.monotonic + 5 + 2 * delay), delay=delay)
    host.monotonic = 1_000.0
    assert abs(host.clock.now() - NOON - timedelta(seconds=1_000)) <= timedelta(seconds=0.002)
