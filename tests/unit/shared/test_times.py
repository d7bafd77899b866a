"""Times in the notations of providers and mail programs."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.times import read_time

AT_TWO = datetime(2026, 11, 25, 14, tzinfo=UTC)

some_json = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())
moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - UTC
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-25T14:00:00Z", AT_TWO),
        ("2026-11-25 14:00", AT_TWO),
        ("2026-11-25T15:00:00+0100", AT_TWO),
        ("2026-11-25T15:00:00+01", AT_TWO),
        ("2026-11-25T14:00:00 +00:00", AT_TWO),
        ("2026-11-25T14:00:00,125Z", AT_TWO.replace(microsecond=125_000)),
        ("2026-11-25T14:00:00.1234567890Z", AT_TWO.replace(microsecond=123_456)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2026-11-25T24:00:00Z", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-25", datetime(2026, 11, 25, tzinfo=UTC)),
        (1_795_615_200, AT_TWO),
        (1_795_615_200_000, AT_TWO),
        ("1795615200", AT_TWO),
        ("1795615200.000000", AT_TWO),
        (1_795_615_200_000_000_000, AT_TWO),
        ("Wed, 25 Nov 2026 14:00:00 +0000", AT_TWO),
        ("Wed, 25 Nov 2026 09:00:00 EST", AT_TWO),
        ("25 Nov 26 14:00 GMT", AT_TWO),
    ],
)
def test_the_common_notations(value: object, expected: datetime) -> None:
    assert read_time(value) == expected


@pytest.mark.parametrize("value", ["", "soon", "2026-13-45", "2026-11-25T25:00:00Z", None, True, [], 1e300])
def test_anything_else_is_no_time(value: object) -> None:
    assert read_time(value) is None


@given(some_json)
def test_any_value_is_a_time_in_utc_or_none(value: object) -> None:
    moment = read_time(value)
    assert moment is None or moment.tzinfo is UTC


@given(moments, offsets)
def test_a_time_is_the_same_in_every_notation(moment: datetime, offset: timezone) -> None:
    local = moment.astimezone(offset)
    whole = moment.replace(microsecond=0)

    assert read_time(local.isoformat()) == moment
    assert read_time(local.strftime("%Y-%m-%d %H:%M:%S.%f%z")) == moment
    assert read_time(format_datetime(local)) == whole
    assert read_time(int(whole.timestamp())) == whole
