from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.providers.http import parse_reset, parse_retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("2", 2),
        (" 120 ", 120),
        ("0", 0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("99999999999999999999", 86_400),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: int | None) -> None:
    assert parse_retry_after(value, now=NOW) == (None if expected is None else timedelta(seconds=expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("12", 12),
        (str(int(NOW.timestamp()) + 3_000), 3_000),
        (str(int(NOW.timestamp()) - 1), 0),
        ("9" * 20, 86_400),
        ("-5", None),
        ("1.5", None),
        ("²", None),
    ],
)
def test_a_reset_is_a_time_to_wait_or_a_moment(value: str | None, expected: int | None) -> None:
    assert parse_reset(value, now=NOW) == (None if expected is None else timedelta(seconds=expected))


@given(st.text())
def test_any_header_is_survived(value: str) -> None:
    asked = parse_retry_after(value, now=NOW)
    assert asked is None or timedelta(0) <= asked <= timedelta(days=1)
