"""Properties of whatever people and providers write: no message is lost, or taken for another one."""

import json
from base64 import b64encode
from datetime import datetime
from typing import Any

import httpx
import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat

from shared.addresses import InvalidAddressError, parse_email
from shared.downloads import file_name
from shared.keywords import Keyword, keyword_of
from shared.message import IncomingMessage
from shared.phone_numbers import parse_phone
from shared.suppressions import SuppressionChange, SuppressionState
from tests.unit.providers.parsing import NOW, anything, fuzzed, json_bytes, parse, some_json
from tests.webhooks import (
    DELIVERED,
    FORM,
    GENERIC_SMS,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    TWILIO_MESSAGES,
    multipart,
    urlencoded,
)

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
TEXT = {
    "from": "+18045551234",
    "to": "+12016661234",
    "type": "sms",
    "body": "Hello",
    "messaging_provider_id": "message-1",
}

lines = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30)


def only_message(path: str, body: bytes, headers: dict[str, str]) -> IncomingMessage:
    [incoming] = parse(path, body, headers).messages
    return incoming


def text_message(**fields: Any) -> IncomingMessage:  # noqa: ANN401 - any JSON
    return only_message(GENERIC_SMS, json_bytes({**TEXT, **fields}), JSON)


def email(**fields: str | bytes) -> IncomingMessage:
    return only_message(SENDGRID_INBOUND, multipart({**MAIL, **fields}), MULTIPART)


# --- Numbers ---


@fuzzed
@given(st.sampled_from(REGIONS), st.sampled_from(REGIONS), st.sampled_from(["", "00", "\u202a", "\u200b+"]))
def test_a_number_is_read_in_a_plan_in_which_it_is_valid(region: str, default: str, prefix: str) -> None:
    number = phonenumbers.example_number(region)
    assert number is not None
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    written = prefix + e164[1:]

    key = parse_phone(written, default).key
    if key != e164:
        national = phonenumbers.parse(written.strip("\u202a"), default)
        assert phonenumbers.is_valid_number_for_region(
            national, default
        ) or national.country_code == phonenumbers.country_code_for_region(default)
        assert key == phonenumbers.format_number(national, PhoneNumberFormat.E164)


@given(st.from_regex(r"1[0-9]{9}|0[1-9][0-9]{8}|[2-9][0-9]{2}[01][0-9]{6}", fullmatch=True))
def test_a_national_form_that_no_plan_has_is_no_number(digits: str) -> None:
    try:
        key = parse_phone(digits, "US").key
    except InvalidAddressError:
        return
    assert key == f"+{digits}"


# --- Addresses ---


@given(
    st.text("aA\u00df\u1e9esS\u017fi\u0131I\u0130\u03c3\u03c2k\u212ae\u0301\u00e9", min_size=1, max_size=4),
    st.text("aA\u00df\u1e9esS\u017fi\u0131I\u0130\u03c3\u03c2k\u212ae\u0301\u00e9", min_size=1, max_size=4),
)
def test_two_domains_are_the_same_only_if_their_a_labels_are(first: str, second: str) -> None:
    try:
        addresses = [parse_email(f"ann@{name}.example") for name in (first, second)]
    except InvalidAddressError:
        return
    if addresses[0].key == addresses[1].key:
        assert addresses[0].spelling.lower() == addresses[1].spelling.lower()


# --- One message taken for another ---


@fuzzed
@given(st.sampled_from(["from", "body", "timestamp"]), lines, lines)
def test_an_id_that_is_used_again_is_another_message_unless_the_content_is_the_same(
    field: str, first: str, second: str
) -> None:
    messages = [text_message(**{field: value}).message for value in (first, second, first)]

    assert messages[0].id == messages[2].id
    if first.strip() != second.strip() and field == "body":
        assert messages[0].id != messages[1].id


@fuzzed
@given(lines, lines, lines)
def test_no_message_id_makes_two_emails_one(message_id: str, first: str, second: str) -> None:
    headers = f"Message-ID: {message_id}\n"
    ids = [email(headers=headers, html="", text=text).message.id for text in (first, second, first)]

    assert ids[0] == ids[2]
    assert (ids[0] == ids[1]) == (first == second)


# --- Times ---


@fuzzed
@given(some_json | st.datetimes().map(datetime.isoformat) | st.floats(0, 1e18, allow_nan=False))
def test_no_time_is_a_reason_to_refuse_and_none_is_ahead(time: object) -> None:
    assert text_message(timestamp=time).message.timestamp <= NOW


# --- Opt-outs ---


@fuzzed
@given(anything, st.sampled_from(["STOP", "stop.", "Opt out", "STOP ALL", "STOP\ufe0f"]))
def test_nothing_that_twilio_adds_hides_a_stop(opt_out_type: str, body: str) -> None:
    form = {**SMS, "Body": body, "OptOutType": opt_out_type}
    keyword = only_message(TWILIO_MESSAGES, urlencoded(form), FORM).keyword

    # The gateway reads the text if Twilio has not recognised a keyword.
    assert (keyword or keyword_of(body)) is Keyword.STOP or opt_out_type.strip().upper() in {
        *Keyword.__members__
    }


@fuzzed
@given(some_json | st.integers(1, 9), st.sampled_from(["group_resubscribe", "group_unsubscribe"]))
def test_an_event_about_a_group_lifts_no_other_opt_out(group: object, word: str) -> None:
    event = {**DELIVERED, "event": word, "asm_group_id": group}
    changes: list[SuppressionChange] = parse(SENDGRID_EVENTS, json.dumps([event]).encode(), JSON).suppressions

    for change in changes:
        assert change.state is SuppressionState.OPTED_OUT or change.ours == f"sendgrid:{group}"


# --- Contents ---


@settings(deadline=None, max_examples=10)
@given(st.integers(40_000, 70_000), st.sampled_from(["b", "table", "a href='x'"]))
def test_a_long_html_is_cut_between_tags_and_says_so(count: int, tag: str) -> None:
    html = f"<{tag}>x</{tag.split(maxsplit=1)[0]}>" * count
    message = email(html=html, text="").message

    assert message.body.endswith(">")
    assert html.startswith(message.body)
    assert bool(message.warnings) == (message.body != html)


@pytest.mark.parametrize("form", ['filename="{word}"', "filename*=utf-8''{escaped}"])
@given(st.text("äöüßéżαβγабв中文日本한국", min_size=1, max_size=20))
def test_the_name_of_a_file_survives(form: str, stem: str) -> None:
    name = f"{stem}.pdf"
    word = f"=?utf-8?b?{b64encode(name.encode()).decode()}?="
    escaped = "".join(f"%{byte:02X}" for byte in name.encode())
    header = "attachment; " + form.format(word=word, escaped=escaped)

    assert file_name(header, httpx.URL("https://example.com/x"), "application/pdf") == name
