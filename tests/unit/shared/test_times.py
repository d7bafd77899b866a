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
        ("2026-11-25 14:00:00 UTC", AT_TWO),
        ("2026/11/25 14:00:00", AT_TWO),
        ("20261125T140000Z", AT_TWO),
        ("20261125140000", AT_TWO),
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


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("Tue, 24 Nov 2026 10:00:00 +0100", datetime(2026, 11, 24, 9, tzinfo=UTC)),
        ("Tue, 24 Nov 2026 10:00:00 -0000 (a comment)", datetime(2026, 11, 24, 10, tzinfo=UTC)),
        ("24 Nov 26 10:00 EST", datetime(2026, 11, 24, 15, tzinfo=UTC)),
        ("Tue Nov 24 10:00:00 2026", datetime(2026, 11, 24, 10, tzinfo=UTC)),
        ("Tue, 24\n Nov 2026 10:00:60 GMT", datetime(2026, 11, 24, 10, 1, tzinfo=UTC)),
        ("Tue, 24 Nov 2026 10:00:00 GMT+0100", datetime(2026, 11, 24, 9, tzinfo=UTC)),
        ("Tue Nov 24 2026 10:00:00 GMT-0500 (EST)", datetime(2026, 11, 24, 15, tzinfo=UTC)),
        ("Nov 24, 2026 10:00:00 PM", None),
        ("Tue, 31 Nov 2026 10:00:00 GMT", None),
        ("Tue, 24 Nov 99999 10:00:00 GMT", None),
        ("Tue, 24 Nov 2026 10:00:00 +99999999", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates_of_emails(written: str, moment: datetime | None) -> None:
    assert read_time(written) == moment


@given(st.text(st.sampled_from("0123456789 +-:,JanTue\n"), max_size=40))
def test_any_date_is_tolerated(text: str) -> None:
    read_time(text)
    read_time(f"Tue, 24 Nov 2026 {text}")
