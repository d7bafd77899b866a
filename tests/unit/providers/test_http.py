import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.providers.base import HttpAnswer, HttpRequest, RejectedError
from shared.providers.generic.sms import GENERIC_SMS
from shared.providers.http import HttpClient, parse_reset, parse_retry_after, send
from shared.providers.registry import create_adapter
from tests import messages

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
def test_a_reset_is_a_duration_or_a_time(value: str | None, expected: int | None) -> None:
    assert parse_reset(value, now=NOW) == (None if expected is None else timedelta(seconds=expected))


@given(st.text())
def test_any_header_is_tolerated(value: str) -> None:
    requested = parse_retry_after(value, now=NOW)
    assert requested is None or timedelta(0) <= requested <= timedelta(days=1)


class StubClient(HttpClient):
    """Gets the same answer to every request."""

    def __init__(self, answer: HttpAnswer) -> None:
        self._answer = answer

    async def post(self, request: HttpRequest) -> HttpAnswer:  # noqa: ARG002 - as its base
        return self._answer


async def send_and_answer(id_: object) -> str:
    body = json.dumps({"messaging_provider_id": id_}).encode()
    client = StubClient(HttpAnswer(202, {}, body))
    return await send(client, create_adapter(GENERIC_SMS), messages.message())


async def test_the_id_in_the_response_is_returned() -> None:
    assert await send_and_answer("SM0123-abc") == "SM0123-abc"


@pytest.mark.parametrize("id_", ["", "x" * 256, "a\0b", "\ud800", "a\nb", 7, None, ["SM0123"]])
async def test_an_id_must_be_a_short_text(id_: object) -> None:
    with pytest.raises(RejectedError) as caught:
        await send_and_answer(id_)
    assert caught.value.code == "unreadable_answer"
