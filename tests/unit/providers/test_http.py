import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.providers.base import (
    Adapter,
    CredentialsError,
    HttpAnswer,
    HttpRequest,
    ProviderError,
    RejectedError,
    TemporaryError,
)
from shared.providers.generic.sms import GENERIC_SMS
from shared.providers.http import HttpClient, parse_reset, parse_retry_after, send
from shared.providers.registry import create_adapter
from shared.providers.sendgrid import SENDGRID
from shared.providers.twilio import TWILIO
from tests import messages
from tests.unit.providers.parsing import fuzzed, some_json

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


numbers = st.integers(-(10**30), 10**30)
dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon", "Fri", "", "x"]),
    numbers,
    st.sampled_from(["Jan", "Dec", "Smarch", ""]),
    numbers,
    numbers,
    numbers,
    numbers,
    st.sampled_from(["GMT", "+0000", "-9999", "+99999999999", ""]),
)


@pytest.mark.parametrize(
    "value",
    ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Fri, 1 Jan 2027 0:0:999999999999999999999 GMT"],
)
def test_a_date_that_is_none_is_ignored(value: str) -> None:
    assert parse_retry_after(value, now=NOW) is None


@given(st.text() | dates)
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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
async def test_the_id_is_found_in_a_response_in_another_encoding(encoding: str) -> None:
    body = '{"messaging_provider_id": "SM1", "text": "Zo\u00eb"}'.encode(encoding)
    client = StubClient(HttpAnswer(202, {}, body))

    assert await send(client, create_adapter(GENERIC_SMS), messages.message()) == "SM1"


names = st.sampled_from(["retry-after", "x-ratelimit-reset", "date", "content-type", "x-message-id"])
bodies = (
    st.binary(max_size=200)
    | some_json.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"code": some_json, "sid": some_json}).map(lambda it: json.dumps(it).encode())
    | st.just(b"[" * 100_000 + b"]" * 100_000)
    | st.just(b'{"sid": ' + b"[" * 2_000 + b"]" * 2_000 + b"}")
)
ADAPTERS = [
    create_adapter(GENERIC_SMS),
    create_adapter(TWILIO, twilio_account_sid="AC" + "2" * 32, twilio_auth_token="0123456789abcdef"),
    create_adapter(SENDGRID, sendgrid_api_key="SG.0123456789"),
]


@fuzzed
@given(
    adapter=st.sampled_from(ADAPTERS),
    status=st.integers(200, 499),
    headers=st.dictionaries(names, st.text() | dates | numbers.map(str)),
    body=bodies,
)
def test_a_status_decides_the_outcome_whatever_the_headers_and_the_body(
    adapter: Adapter[Any], status: int, headers: dict[str, str], body: bytes
) -> None:
    error: ProviderError | None = None
    try:
        asyncio.run(send(StubClient(HttpAnswer(status, headers, body)), adapter, messages.message()))
    except ProviderError as exc:
        error = exc

    if error is None:
        assert status < 300
    else:
        assert error.status_code == status
        assert isinstance(error, RejectedError | CredentialsError | TemporaryError)
        assert error.throttled or status != 429
