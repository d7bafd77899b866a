import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.http.errors import InvalidRequestError
from services.gateway.messages.idempotency import PATTERN, parse_key
from services.gateway.messages.service import trace_headers
from services.gateway.http.parameters import as_conversation, as_participant

KEY = "13db6b6e-2dbd-5c1c-b749-f90205e39fde"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("+18045551234", "+18045551234"),
        (" 18045551234", "+18045551234"),  # an unescaped + in a query string
        ("804-555-1234", "+18045551234"),
        ("12345", "12345"),
        ("User@Example.com", "user@example.com"),
        ("user tag@example.com", "user+tag@example.com"),
        ("user+tag@example.com", "user+tag@example.com"),
    ],
)
def test_participants_are_normalised_as_addresses_are(text: str | None, expected: str | None) -> None:
    assert as_participant(text, default_region="US") == expected


@pytest.mark.parametrize("text", ["", " ", "+", "@", "a@", "\0"])
def test_what_is_no_participant(text: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        as_participant(text, default_region="US")

    assert [fault.field for fault in error.value.faults] == ["participant"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("007", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("9" * 5_000, None),
        ("0", None),
        ("-1", None),
        ("1_0", None),
        ("²", None),
        ("", None),
        (KEY, UUID(KEY)),
        (KEY.upper(), UUID(KEY)),
        (KEY + "0", None),
    ],
)
def test_references_to_conversations(text: str, expected: int | UUID | None) -> None:
    assert as_conversation(text) == expected


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        ('  "abc"  ', "abc"),
        (r'"a\"b\\c"', 'a"b\\c'),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ("with space", "with space"),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
    ],
)
def test_idempotency_keys(header: str, key: str) -> None:
    assert parse_key([header]) == key


def test_there_need_not_be_an_idempotency_key() -> None:
    assert parse_key([]) is None


@pytest.mark.parametrize(
    "headers",
    [[""], ['""'], ['"abc'], ['"a"b"'], ["x" * 256], ["ä"], ["a\tb"], ["\xa0a"], ["a", "a"], [r'"a\b"']],
)
def test_bad_idempotency_keys(headers: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as error:
        parse_key(headers)

    assert [fault.field for fault in error.value.faults] == ["Idempotency-Key"]


@given(
    st.text('a "\\é', min_size=1, max_size=6) | st.from_regex(PATTERN, alphabet=st.characters(codec="ascii"))
)
def test_the_document_tells_which_keys_are_taken(header: str) -> None:
    header = header.strip()
    try:
        taken = parse_key([header]) is not None
    except InvalidRequestError:
        taken = False
    assert taken == bool(re.search(PATTERN, header))


@pytest.mark.parametrize(
    ("headers", "passed"),
    [
        ({"traceparent": TRACE, "nats-rollup": "all"}, {"traceparent": TRACE}),
        ({"traceparent": TRACE.upper()}, {}),
        ({"traceparent": f"{TRACE}\r\nx: y"}, {}),
        ({}, {}),
    ],
)
def test_of_the_headers_only_the_trace_goes_further(headers: dict[str, str], passed: dict[str, str]) -> None:
    assert trace_headers(headers) == passed
