from datetime import UTC, datetime

import pytest

from services.sender.schedule import Limit, Schedule, Schedules, UsedUpError
from shared.bus.publisher import Outgoing
from shared.bus.topology import LIMITS_BUCKET, limit_key
from tests.jetstream import BusTo, JetStream, PublisherTo

DAY = 86_400.0
NOON = 20_000.5 * DAY


def test_slots_are_evenly_spaced_from_the_start() -> None:
    limit = Limit("x", rate=10)
    state, first = Schedule().reserve(limit, wanted=2, needed=1, now=NOON)
    _, then = state.reserve(limit, wanted=2, needed=1, now=NOON)
    assert [time - NOON for time in (*first, *then)] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-5)


def test_an_idle_limit_accumulates_no_slots() -> None:
    limit = Limit("x", rate=10)
    state, _ = Schedule().reserve(limit, wanted=1, needed=1, now=NOON)
    _, times = state.reserve(limit, wanted=3, needed=1, now=NOON + 60)
    assert [time - NOON for time in times] == pytest.approx([60, 60.1, 60.2], abs=1e-5)


def test_the_slots_of_a_day_are_counted() -> None:
    limit = Limit("x", per_day=5)
    state, times = Schedule().reserve(limit, wanted=3, needed=1, now=NOON)
    assert times == [NOON] * 3
    state, times = state.reserve(limit, wanted=3, needed=1, now=NOON)
    assert times == [NOON] * 2
    with pytest.raises(UsedUpError) as caught:
        state.reserve(limit, wanted=1, needed=1, now=NOON)
    assert caught.value.until == 20_001 * DAY
    _, times = state.reserve(limit, wanted=9, needed=1, now=caught.value.until)
    assert times == [caught.value.until] * 5


def test_a_message_that_exceeds_the_rest_of_the_daily_limit_waits_for_the_next_day() -> None:
    state, _ = Schedule().reserve(Limit("x", per_day=5), wanted=3, needed=3, now=NOON)
    with pytest.raises(UsedUpError):
        state.reserve(Limit("x", per_day=5), wanted=3, needed=3, now=NOON)


def test_a_clock_that_is_behind_does_not_begin_the_day_again() -> None:
    limit = Limit("x", per_day=5)
    state, _ = Schedule().reserve(limit, wanted=5, needed=1, now=20_001 * DAY)
    with pytest.raises(UsedUpError):
        state.reserve(limit, wanted=1, needed=1, now=20_001 * DAY - 0.1)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"null", b'{"next":"later"}', b'{"next":1e999}'])
async def test_a_limit_whose_state_cannot_be_read_starts_again(payload: bytes) -> None:
    server = JetStream(lambda: datetime.fromtimestamp(NOON, UTC))
    schedules = Schedules(BusTo(server), PublisherTo(server), clock=lambda: NOON)
    server.store(f"KV_{LIMITS_BUCKET}", Outgoing(f"$KV.{LIMITS_BUCKET}.{limit_key('x')}", None, payload))

    times = await schedules.reserve(Limit("x", rate=10), wanted=2, needed=1)
    assert [time - NOON for time in times] == pytest.approx([0, 0.1], abs=1e-5)
