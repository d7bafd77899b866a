"""The `Idempotency-Key`, and the fingerprints of requests."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from services.gateway.http.errors import InvalidRequestError
from services.gateway.messages.idempotency import KEY_PATTERN, fingerprint, parse_key
from services.gateway.messages.schemas import EmailRequest, SendRequest, SmsRequest
from shared.bus.topology import KEY_RETENTION, LEDGER_GRACE, Stream
from shared.message import Priority
from shared.validation import Subject, context_of
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import NOW, calling, create_gateway, events
from tests.unit.gateway.requests import EMAIL, SEND_SMS, SMS

SECOND = timedelta(seconds=1)

CONTEXT = context_of("US")


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
def test_a_key_is_bare_or_quoted(header: str, key: str) -> None:
    assert parse_key([header]) == key


def test_a_key_is_optional() -> None:
    assert parse_key([]) is None


@pytest.mark.parametrize(
    "headers",
    [[""], ['""'], ['"abc'], ['"a"b"'], ["x" * 256], ["ä"], ["a\tb"], ["\xa0a"], ["a", "a"], [r'"a\b"']],
)
def test_an_invalid_key_is_refused(headers: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as error:
        parse_key(headers)

    assert [fault.field for fault in error.value.faults] == ["Idempotency-Key"]


@given(
    st.text('a "\\é', min_size=1, max_size=6)
    | st.from_regex(KEY_PATTERN, alphabet=st.characters(codec="ascii"))
)
def test_the_documented_pattern_matches_exactly_the_valid_keys(header: str) -> None:
    header = header.strip()
    try:
        is_valid = parse_key([header]) is not None
    except InvalidRequestError:
        is_valid = False
    assert is_valid == bool(re.search(KEY_PATTERN, header))


async def test_a_repeated_answer_says_so() -> None:
    async with calling(create_gateway()) as client:
        first, again, other = [
            await client.post(SEND_SMS, json=SMS, headers={"idempotency-key": key}) for key in "aab"
        ]

    assert first.json() == again.json() != other.json()
    replayed = [each.headers.get("idempotency-replayed") for each in (first, again, other)]
    assert replayed == [None, "true", None]


def sms(**changes: Any) -> SmsRequest:  # noqa: ANN401 - any field
    return SmsRequest.model_validate({**SMS, **changes}, context=CONTEXT)


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"to": "804-555-1234"}, True),
        ({"attachments": []}, True),
        ({"timestamp": "2024-11-01T15:00:00+01:00"}, True),
        ({"send_at": None}, True),
        ({"priority": None}, True),
        ({"reference": None, "metadata": {}}, True),
        ({"body": "another text"}, False),
        ({"type": "mms"}, False),
        ({"from": "+12016660000"}, False),
        ({"to": "+18045550000"}, False),
        ({"attachments": ["https://example.com/a.jpg"]}, False),
        ({"timestamp": None}, False),
        ({"timestamp": "2024-11-01T14:00:01Z"}, False),
        ({"send_at": "2026-11-01T14:00:00Z"}, False),
        ({"priority": Priority.BULK}, False),
        ({"reference": "order-17"}, False),
        ({"metadata": {"order": "17"}}, False),
    ],
)
def test_the_fingerprint_is_that_of_the_normalised_request(changes: dict[str, Any], *, is_same: bool) -> None:
    assert (fingerprint(sms()) == fingerprint(sms(**changes))) is is_same


def test_an_absent_an_empty_and_no_body_are_the_same() -> None:
    requests = [sms(body=body, attachments=["a"]) for body in (None, "")]

    assert len({fingerprint(request) for request in requests}) == 1


class TaggedSms(SmsRequest):
    """A request of a later release, which has one more field."""

    tag: Subject | None = Field(default=None, description="Chosen by the client")
    labels: list[str] = Field(default_factory=list)


def test_a_field_of_a_later_release_changes_the_fingerprint_only_if_it_is_set() -> None:
    def tagged(**fields: Any) -> SendRequest:  # noqa: ANN401 - any field
        return TaggedSms.model_validate({**SMS, **fields}, context=CONTEXT)

    assert fingerprint(tagged()) == fingerprint(tagged(tag=None, labels=[])) == fingerprint(sms())
    assert fingerprint(tagged(tag="a")) != fingerprint(sms())
    assert fingerprint(tagged(tag="a")) != fingerprint(tagged(tag="b"))


def test_the_fingerprint_of_an_email_has_its_names_and_its_copies() -> None:
    requests = (
        EMAIL,
        {**EMAIL, "to": "Ben <contact@gmail.com>"},
        {**EMAIL, "cc": ["a@example.com"]},
        {**EMAIL, "bcc": ["a@example.com"]},
        {**EMAIL, "cc": ["Ann <a@example.com>"]},
    )
    given = [EmailRequest.model_validate(each, context=CONTEXT) for each in requests]

    assert len({fingerprint(each) for each in given}) == len(requests)


def test_an_sms_and_an_email_have_different_fingerprints() -> None:
    email = EmailRequest.model_validate(EMAIL, context=CONTEXT)

    assert fingerprint(email) != fingerprint(sms())


def test_a_fingerprint_is_the_same_in_every_release() -> None:
    assert fingerprint(sms()) == "52f9bbc9872b42d08f81decd4067cbb1"


class Later:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


async def test_a_request_with_a_forgotten_key_is_a_new_message() -> None:
    clock = Later()
    server = JetStream(clock)
    ids = []
    async with calling(create_gateway(server, clock=clock)) as client:
        for after in (timedelta(0), KEY_RETENTION - SECOND, KEY_RETENTION):
            clock.now = NOW + after
            response = await client.post(SEND_SMS, json=SMS, headers={"Idempotency-Key": "a-key"})
            assert response.status_code == 202
            ids.append(response.json()["id"])

    first, repeated, new = ids
    assert repeated == first != new
    assert [event.subject for event in events(server, Stream.OUTBOUND)] == [first, first, new]


def test_the_ledger_remembers_a_message_for_longer_than_its_key_is_remembered() -> None:
    """Otherwise, a request that is repeated with its key would be sent twice."""
    assert LEDGER_GRACE > KEY_RETENTION
