"""Twilio's webhooks: their content, and their signatures as Twilio's own library makes them."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from shared.channels import Channel, MessageType
from shared.keywords import Keyword
from shared.message import Message
from shared.providers.registry import create_verifier
from shared.providers.twilio import TWILIO
from shared.providers.twilio.signature import TwilioSignatures
from shared.providers.webhooks import Refusal, UnreadableWebhookError, WebhookContent, WebhookRequest
from shared.settings import SettingsError
from shared.status import Status
from shared.suppressions import SuppressionSource, SuppressionState, changes_by_keyword
from tests.unit.providers.parsing import (
    NOW,
    changed,
    flipped,
    flips,
    fuzzed,
    invalid_fields,
    parse,
    request,
    require_tolerated,
    webhook_at,
    without,
)
from tests.webhooks import (
    FORM,
    JSON,
    PUBLIC_URL,
    SMS,
    STATUS,
    TOKEN,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    by_twilio,
    urlencoded,
)

# --- Messages -----------------------------------------------------------------------------------------


def parse_sms(**changes: Any) -> WebhookContent:  # noqa: ANN401 - any field
    return parse(TWILIO_MESSAGES, urlencoded({**SMS, **changes}), FORM)


def sms(**changes: Any) -> Message:  # noqa: ANN401 - any field
    [incoming] = parse_sms(**changes).messages
    return incoming.message


def test_an_sms() -> None:
    [incoming] = parse_sms().messages
    message = incoming.message

    assert (message.type, message.from_, message.to) == (MessageType.SMS, "+18045551234", "+12016661234")
    assert (message.provider, message.provider_message_id) == ("twilio", SMS["MessageSid"])
    assert (message.body, message.attachments) == ("Hello & good day, Zoë!", [])
    assert (message.timestamp, message.created_at) == (NOW, NOW)
    assert incoming.raw == SMS


def test_the_response_is_empty_twiml() -> None:
    webhook = webhook_at(TWILIO_MESSAGES)

    assert (webhook.respond(parse_sms()), webhook.response) == ("<Response/>", "text/xml")


def test_an_mms() -> None:
    media = {f"MediaUrl{number}": f"https://api.twilio.com/media/{number}" for number in range(10)}
    message = sms(NumMedia="10", Body="", MediaContentType0="image/png", **media)

    assert (message.type, message.body, message.attachments) == (MessageType.MMS, "", list(media.values()))


def test_a_message_has_the_same_id_whenever_it_is_delivered() -> None:
    assert sms().id == sms(Body="another").id != sms(MessageSid="SM" + "9" * 32).id


def test_control_characters_are_replaced() -> None:
    assert sms(Body="a\x00b\x1b[0m\n").body == "a\ufffdb\ufffd[0m\n"


def test_unknown_fields_are_kept() -> None:
    [incoming] = parse_sms(timestamp="soon", type="fax", Twice=["a", "b"], Extra="\x00").messages
    raw = incoming.raw

    assert (raw["timestamp"], raw["Twice"], raw["Extra"]) == ("soon", ["a", "b"], "\x00")


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        *((name, ["+1", "+2"], name) for name in ("From", "To", "MessageSid")),
        *((name, "", name) for name in ("To", "MessageSid")),
        ("Body", ["a", "b"], "Body"),
        ("MessageSid", SMS["MessageSid"] + "NumMedia0", "MessageSid"),
        ("MessageSid", SMS["MessageSid"][:-1], "MessageSid"),
        ("MessageSid", "AC" + "1" * 32, "MessageSid"),
        ("AccountSid", SMS["AccountSid"] + "ApiVersion", "AccountSid"),
        ("", "x", "body"),
        ("From+18045550000", "", "body"),
        ("From12345", "", "body"),
        ("é", "x", "body"),
        ("NumMedia", "many", "NumMedia"),
        ("NumMedia", "-1", "NumMedia"),
        ("NumMedia", "11", "NumMedia"),
        ("NumMedia", "9" * 5_000, "NumMedia"),
        ("NumMedia", "٣", "NumMedia"),
    ],
)
def test_an_invalid_field_is_named(field: str, value: str | list[str], fault: str) -> None:
    assert invalid_fields(TWILIO_MESSAGES, urlencoded({**SMS, field: value}), FORM) == {fault}


@pytest.mark.parametrize("field", ["From", "To", "MessageSid", "AccountSid", "Body", "NumMedia"])
def test_a_missing_field_is_named(field: str) -> None:
    assert invalid_fields(TWILIO_MESSAGES, urlencoded(without(SMS, field)), FORM) == {field}


@pytest.mark.parametrize("body", [b"Body=\xff", b"Body=%ff", b"%c3=x", "Body=é".encode("utf-16")])
def test_a_form_must_be_utf_8(body: bytes) -> None:
    with pytest.raises(UnreadableWebhookError):
        parse(TWILIO_MESSAGES, body, FORM)


@pytest.mark.parametrize(
    ("form", "keyword", "state"),
    [
        ({"Body": "adieu", "OptOutType": "STOP"}, Keyword.STOP, SuppressionState.OPTED_OUT),
        ({"Body": "salut", "OptOutType": "START"}, Keyword.START, SuppressionState.OPTED_IN),
        ({"Body": "STOP", "OptOutType": "HELP"}, Keyword.HELP, None),
        ({"Body": "STOP", "OptOutType": "CUSTOM"}, None, None),
        ({"Body": "STOP", "OptOutType": ""}, None, None),
    ],
)
def test_the_keyword_that_twilio_recognised_opts_out_and_in(
    form: dict[str, str], keyword: Keyword | None, state: SuppressionState | None
) -> None:
    [incoming] = parse_sms(**form).messages
    found = changes_by_keyword(incoming)

    assert incoming.keyword is keyword
    assert [each.state for each in found] == ([state] if state else [])
    assert all((each.ours, each.theirs) == (SMS["To"], SMS["From"]) for each in found)


SERVICE = "MG" + "5" * 32


def test_a_keyword_also_concerns_the_messaging_service() -> None:
    [incoming] = parse_sms(OptOutType="STOP", MessagingServiceSid=SERVICE).messages

    assert [each.ours for each in changes_by_keyword(incoming)] == [SMS["To"], f"twilio:{SERVICE}"]


# --- Status callbacks ---------------------------------------------------------------------------------


def parse_status(**changes: Any) -> WebhookContent:  # noqa: ANN401 - any field
    return parse(TWILIO_STATUS, urlencoded({**STATUS, **changes}), FORM)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("delivered", Status.DELIVERED),
        ("read", Status.DELIVERED),
        ("undelivered", Status.UNDELIVERED),
        ("failed", Status.UNDELIVERED),
        ("canceled", Status.CANCELED),
        ("Cancelled", Status.CANCELED),
        ("Delivered", Status.DELIVERED),
    ],
)
def test_a_status_callback_is_a_receipt(word: str, status: Status) -> None:
    content = parse_status(MessageStatus=word, ErrorCode="30003")

    [receipt] = content.receipts
    assert (receipt.channel, receipt.provider) == (Channel.SMS, "twilio")
    assert (receipt.provider_message_id, receipt.message_id) == (STATUS["MessageSid"], None)
    assert (receipt.status, receipt.error_code, receipt.occurred_at) == (status, "30003", NOW)
    assert receipt.raw == {**STATUS, "MessageStatus": word, "ErrorCode": "30003"}
    assert (content.messages, content.suppressions) == ([], [])
    assert webhook_at(TWILIO_STATUS).respond(content) is None


@pytest.mark.parametrize(
    ("query", "message_id"),
    [
        (b"message_id=0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000001"),
        (b"message_id=someone%20else&x=1", None),
        (b"", None),
    ],
)
def test_a_receipt_has_our_id_from_the_url_of_the_callback(query: bytes, message_id: str | None) -> None:
    content = webhook_at(TWILIO_STATUS).parse(request(urlencoded(STATUS), FORM, query=query))

    assert content.receipts[0].message_id == (message_id and UUID(message_id))


@pytest.mark.parametrize("code", [{}, {"ErrorCode": ""}])
def test_a_callback_may_have_no_error_code(code: dict[str, str]) -> None:
    [receipt] = parse_status(**code).receipts

    assert receipt.error_code is None


def test_receipts_of_the_same_status_are_the_same() -> None:
    keys = {
        word: parse_status(MessageStatus=word).receipts[0].key for word in ("delivered", "read", "failed")
    }

    assert keys["delivered"] == keys["read"] != keys["failed"]


@pytest.mark.parametrize(
    ("code", "kept"), [({}, ("new one", None)), ({"ErrorCode": "30003"}, ("30003", "new one"))]
)
def test_an_unknown_status_is_kept(code: dict[str, str], kept: tuple[str, str | None]) -> None:
    [receipt] = parse_status(MessageStatus="new one", **code).receipts

    assert (receipt.status, receipt.key) == (Status.UNKNOWN, "new one")
    assert (receipt.error_code, receipt.error_detail) == kept


@pytest.mark.parametrize(
    "word", ["queued", "accepted", "scheduled", "sending", "sent", "partially_delivered"]
)
def test_other_statuses_are_ignored(word: str) -> None:
    assert parse_status(MessageStatus=word) == WebhookContent()


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, Status.SENT) for word in ("queued", "accepted", "scheduled", "sending", "sent", "Sent")),
        ("partially_delivered", Status.SENT),
        ("delivered", Status.DELIVERED),
    ],
)
def test_an_acceptance_with_our_id_is_a_receipt(word: str, status: Status) -> None:
    body = urlencoded({**STATUS, "MessageStatus": word})
    ours = b"message_id=0198c0de-0000-7000-8000-000000000001"
    found = webhook_at(TWILIO_STATUS).parse(request(body, FORM, query=ours)).receipts

    assert [(each.status, each.key) for each in found] == [(status, status)]


@pytest.mark.parametrize("word", ["failed", "undelivered", "sent"])
def test_a_callback_with_code_21610_is_an_opt_out(word: str) -> None:
    [change] = parse_status(MessageStatus=word, ErrorCode="21610").suppressions

    assert (change.channel, change.ours, change.theirs) == (Channel.SMS, STATUS["From"], STATUS["To"])
    assert (change.state, change.source) == (SuppressionState.OPTED_OUT, SuppressionSource.PROVIDER)
    assert (change.detail, change.occurred_at) == ("twilio", NOW)


@pytest.mark.parametrize("from_", ["", STATUS["From"]])
def test_an_opt_out_from_a_messaging_service_concerns_all_its_numbers(from_: str) -> None:
    content = parse_status(MessageStatus="failed", ErrorCode="21610", From=from_, MessagingServiceSid=SERVICE)

    assert [each.ours for each in content.suppressions] == [f"twilio:{SERVICE}"]
    assert content.invalid == []


@pytest.mark.parametrize("code", ["30003", "21611", "021610"])
def test_other_codes_are_not_opt_outs(code: str) -> None:
    assert parse_status(MessageStatus="failed", ErrorCode=code).suppressions == []


@pytest.mark.parametrize("field", ["MessageSid", "AccountSid", "MessageStatus"])
@pytest.mark.parametrize("value", [[], ["a", "b"]])
def test_a_callback_needs_a_message_and_a_status(field: str, value: list[str]) -> None:
    assert invalid_fields(TWILIO_STATUS, urlencoded({**STATUS, field: value}), FORM) == {field}


@pytest.mark.parametrize("field", ["From", "To"])
@pytest.mark.parametrize("value", ["", "nobody in particular"])
def test_an_opt_out_without_an_address_is_reported_and_its_receipt_is_kept(field: str, value: str) -> None:
    content = parse_status(MessageStatus="failed", ErrorCode="21610", **{field: value})

    assert len(content.receipts) == 1
    assert content.suppressions == []
    assert [[fault.field for fault in faults] for faults in content.invalid] == [[field]]


@fuzzed
@given(st.binary(max_size=200) | changed({**SMS, "MediaUrl0": "https://a.example"}).map(urlencoded))
def test_any_form_is_tolerated(body: bytes) -> None:
    require_tolerated(TWILIO_MESSAGES, body, FORM)


@fuzzed
@given(st.binary(max_size=200) | changed({**STATUS, "ErrorCode": "21610"}).map(urlencoded))
def test_any_callback_is_tolerated(body: bytes) -> None:
    require_tolerated(TWILIO_STATUS, body, FORM)


# --- Signatures ---------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
values = st.text(st.characters(codec="utf-8"), max_size=40)
forms = st.dictionaries(names, st.lists(values, min_size=1, max_size=3), max_size=8)

verify = TwilioSignatures(TOKEN, PUBLIC_URL)


class _Values(dict[str, list[str]]):
    """A form as the library expects it if a name has several values."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def sign(form: Mapping[str, list[str]], url: str = PUBLIC_URL + TWILIO_MESSAGES) -> str:
    signature: str = RequestValidator(TOKEN).compute_signature(url, _Values(form))
    return signature


def signed(body: bytes, signature: str, *, query: bytes = b"", path: str = TWILIO_MESSAGES) -> WebhookRequest:
    return request(body, {**FORM, "x-twilio-signature": signature}, path=path, query=query)


@given(forms)
def test_a_request_signed_by_twilio_is_genuine(form: dict[str, list[str]]) -> None:
    assert verify(signed(urlencoded(form), sign(form))) is None


@given(forms, st.integers(0), flips)
def test_a_form_with_a_flipped_byte_is_judged_as_twilio_judges_it(
    form: dict[str, list[str]], position: int, by: int
) -> None:
    form = {**form, "MessageSid": ["SM1"]}
    signature = sign(form)
    body = flipped(urlencoded(form), position, by)

    assert (verify(signed(body, signature)) is None) == is_genuine_to_twilio(body, signature)


def is_genuine_to_twilio(body: bytes, signature: str) -> bool:
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, errors="strict")
        url = PUBLIC_URL + TWILIO_MESSAGES
        return bool(RequestValidator(TOKEN).validate(url, _Values(form), signature))
    except UnicodeError:
        return False


@pytest.mark.parametrize("name", SMS)
@pytest.mark.parametrize("by", [1, 2, 4, 8, 16])
def test_a_flipped_bit_in_a_parameter_is_refused(name: str, by: int) -> None:
    signature = sign({name: [value] for name, value in SMS.items()})
    other_name = {**without(SMS, name), flipped(name.encode(), 1, by).decode(): SMS[name]}
    other_value = {**SMS, name: flipped(SMS[name].encode() or b"0", 0, by).decode()}

    for form in (other_name, other_value):
        assert verify(signed(urlencoded(form), signature)) is Refusal.WRONG_SIGNATURE


@given(st.data(), flips)
def test_a_flipped_byte_in_the_url_the_token_or_the_signature_is_refused(
    data: st.DataObject, by: int
) -> None:
    form = {name: [value] for name, value in SMS.items()}
    target = data.draw(st.sampled_from(["path", "query", "url", "token", "signature"]))
    position = data.draw(st.integers(0))
    by = by & 0x7F or 1

    def perhaps(name: str, text: str) -> str:
        return flipped(text.encode(), position, by).decode() if target == name else text

    path, query = perhaps("path", TWILIO_MESSAGES), b"\x01" if target == "query" else b""
    url = "https://" + perhaps("url", PUBLIC_URL.removeprefix("https://"))
    try:
        signatures = TwilioSignatures(perhaps("token", TOKEN), url)
    except ValueError:
        return  # it is not a URL any more
    changed_request = signed(urlencoded(form), perhaps("signature", sign(form)), query=query, path=path)
    assert signatures(changed_request) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("signature", ["", "*", "a", "é", "AAAA", "A" * 5_000])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    assert verify(signed(urlencoded(SMS), signature)) is Refusal.WRONG_SIGNATURE


def test_a_signature_for_another_webhook_or_by_another_token_is_refused() -> None:
    for genuine in (by_twilio(TWILIO_STATUS, SMS), by_twilio(TWILIO_MESSAGES, SMS, token="another")):
        given_request = request(genuine["content"], genuine["headers"], path=TWILIO_MESSAGES)
        assert verify(given_request) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize(
    ("configured", "signed_url"),
    [
        ("https://a.example", "https://a.example:443"),
        ("https://a.example:8443", "https://a.example"),
        ("http://a.example:8080/", "http://a.example:8080"),
        ("http://[::1]:8080", "http://[::1]"),
        ("http://[::1]", "http://[::1]:80"),
    ],
)
def test_twilio_signs_urls_with_or_without_their_port(configured: str, signed_url: str) -> None:
    signature = sign({"a": ["b"]}, signed_url + TWILIO_MESSAGES)

    assert TwilioSignatures(TOKEN, configured)(signed(b"a=b", signature)) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"x-forwarded-host": "evil.example"},
        {"forwarded": "host=evil.example;proto=http"},
    ],
)
def test_the_url_is_not_taken_from_the_headers(headers: dict[str, str]) -> None:
    genuine = by_twilio(TWILIO_MESSAGES, SMS, **headers)

    assert verify(request(genuine["content"], genuine["headers"], path=TWILIO_MESSAGES)) is None


def test_the_query_is_signed() -> None:
    signature = sign({"a": ["b"]}, f"{PUBLIC_URL}{TWILIO_MESSAGES}?x=%20y&z")

    assert verify(signed(b"a=b", signature, query=b"x=%20y&z")) is None
    assert verify(signed(b"a=b", signature, query=b"x=+y&z")) is Refusal.WRONG_SIGNATURE


@given(st.binary(max_size=100), st.integers(0), flips)
def test_a_body_that_is_not_a_form_is_signed_by_its_hash_in_the_url(
    body: bytes, position: int, by: int
) -> None:
    query = f"bodySHA256={sha256(body).hexdigest()}"
    headers = {**JSON, "x-twilio-signature": sign({}, f"{PUBLIC_URL}{TWILIO_MESSAGES}?{query}")}

    def refusal(body: bytes, query: str) -> Refusal | None:
        return verify(request(body, headers, path=TWILIO_MESSAGES, query=query.encode()))

    assert refusal(body, query) is None
    assert refusal(body + b"!", query) is Refusal.WRONG_SIGNATURE
    assert refusal(b"", "") is Refusal.WRONG_SIGNATURE
    if body:
        assert refusal(flipped(body, position, by), query) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("query", [b"a=%C3%A9", b"bodySHA256=%FF", b"\xff", b"&&=&%"])
def test_any_query_is_tolerated(query: bytes) -> None:
    headers = {**JSON, "x-twilio-signature": "AAAA"}

    assert verify(request(b"{}", headers, path=TWILIO_MESSAGES, query=query)) is Refusal.WRONG_SIGNATURE


@pytest.mark.usefixtures("no_environment")
def test_the_verifier_needs_the_token_and_the_url() -> None:
    assert create_verifier(TWILIO) is None
    assert create_verifier(TWILIO, twilio_auth_token=TOKEN, public_base_url=PUBLIC_URL)
    with pytest.raises(SettingsError, match="must be set along with TWILIO_AUTH_TOKEN"):
        create_verifier(TWILIO, twilio_auth_token=TOKEN)


def test_spaces_around_the_token_do_not_matter() -> None:
    verifier = create_verifier(TWILIO, twilio_auth_token=f" {TOKEN} ", public_base_url=PUBLIC_URL)

    assert verifier
    assert verifier(signed(b"a=b", sign({"a": ["b"]}))) is None
