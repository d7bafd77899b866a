"""The generic providers' webhooks: their content, and their signatures as Standard Webhooks makes them."""

import hmac
import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as StandardWebhook

from shared.channels import Channel, MessageType
from shared.events import receipt_id
from shared.ids import conversation_key
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers.generic.email import GENERIC_EMAIL
from shared.providers.generic.receive import Received
from shared.providers.generic.signature import WebhookSecrets
from shared.providers.generic.sms import GENERIC_SMS
from shared.providers.registry import create_verifier
from shared.providers.webhooks import Refusal, UnreadableWebhookError, WebhookRequest
from shared.settings import SettingsError
from shared.status import Status
from shared.suppressions import SuppressionSource
from tests.malformed import UNREADABLE_JSON
from tests.unit.providers.parsing import (
    NOW,
    changed,
    flipped,
    flips,
    fuzzed,
    invalid_fields,
    json_bytes,
    parse,
    request,
    require_tolerated,
    some_json,
    webhook_at,
    without,
)
from tests.webhooks import JSON

SMS_PATH, SMS_STATUS_PATH = "/api/webhooks/sms", "/api/webhooks/sms/status"
EMAIL_PATH, EMAIL_STATUS_PATH = "/api/webhooks/email", "/api/webhooks/email/status"
SMS = {
    "from": "+18045551234",
    "to": "+12016661234",
    "type": "sms",
    "messaging_provider_id": "message-1",
    "body": "text message",
    "attachments": None,
    "timestamp": "2024-11-01T14:00:00Z",
}
EMAIL = {
    "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
    "to": "[contact@gmail.com](mailto:contact@gmail.com)",
    "xillio_id": "message-2",
    "body": "<p>Hello!</p>",
    "attachments": ["attachment-url"],
    "timestamp": "2024-11-01T14:00:00Z",
}
SMS_RECEIPT = {"messaging_provider_id": "message-1", "status": "delivered"}
EMAIL_RECEIPT = {"xillio_id": "message-2", "status": "delivered"}
PAYLOADS: dict[str, dict[str, Any]] = {
    SMS_PATH: SMS,
    EMAIL_PATH: EMAIL,
    SMS_STATUS_PATH: SMS_RECEIPT,
    EMAIL_STATUS_PATH: EMAIL_RECEIPT,
}
MISSING = object()


def parse_message(path: str, payload: dict[str, Any]) -> IncomingMessage:
    [incoming] = parse(path, json_bytes(payload), JSON).messages
    return incoming


def parse_receipt(path: str, payload: dict[str, Any]) -> IncomingReceipt:
    [receipt] = parse(path, json_bytes(payload), JSON).receipts
    return receipt


# --- Messages -----------------------------------------------------------------------------------------


def test_an_sms() -> None:
    incoming = parse_message(SMS_PATH, SMS)
    message = incoming.message

    assert (message.type, message.from_, message.to) == (MessageType.SMS, "+18045551234", "+12016661234")
    assert (message.provider, message.provider_message_id) == ("generic_sms", "message-1")
    assert (message.body, message.attachments) == ("text message", [])
    assert (message.timestamp, message.created_at) == (datetime(2024, 11, 1, 14, tzinfo=UTC), NOW)
    assert message.conversation_key == conversation_key(Channel.SMS, ["+12016661234", "+18045551234"])
    assert incoming.raw == SMS


def test_an_email() -> None:
    incoming = parse_message(EMAIL_PATH, {**EMAIL, "from": "A User <User@UseHatchApp.com>", "subject": "Hi"})
    message = incoming.message

    assert (message.type, message.subject) == (MessageType.EMAIL, "Hi")
    assert (message.from_, message.from_key) == ("User@usehatchapp.com", "user@usehatchapp.com")
    assert (message.to, message.body) == ("contact@gmail.com", "<p>Hello!</p>")
    assert (message.provider, message.provider_message_id) == ("generic_email", "message-2")
    assert message.attachments == ["attachment-url"]


def test_numbers_may_be_in_national_form_and_the_timestamp_may_be_missing() -> None:
    payload = {**without(SMS, "timestamp"), "from": "(804) 555-1234", "type": "mms"}
    message = parse_message(SMS_PATH, payload).message

    assert (message.from_, message.type, message.timestamp) == ("+18045551234", MessageType.MMS, NOW)


def test_a_message_has_the_same_id_whenever_it_is_delivered() -> None:
    first = parse_message(EMAIL_PATH, EMAIL)
    again = parse_message(EMAIL_PATH, {**EMAIL, "unknown": {"field": 1}})
    other = parse_message(EMAIL_PATH, {**EMAIL, "xillio_id": "message-3"})
    same_number = parse_message(SMS_PATH, {**SMS, "messaging_provider_id": "message-2"})

    assert first.message.id == again.message.id
    assert len({first.message.id, other.message.id, same_number.message.id}) == 3


@pytest.mark.parametrize("payload", [{"body": ""}, {"body": None, "attachments": ["https://a.example/b"]}])
def test_the_body_may_be_empty(payload: dict[str, Any]) -> None:
    assert parse_message(SMS_PATH, {**SMS, **payload}).message.body == ""


def test_unknown_fields_are_kept() -> None:
    payload = {**SMS, "segments": [1, {"a": None}]}

    assert parse_message(SMS_PATH, payload).raw == payload


# --- Messages that can only be read in part --------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("+5215512345678", "+525512345678"),
        ("+22997123456", "+2290197123456"),
        ("+22507123456", "+2250707123456"),
        ("447911123456", "+447911123456"),
        (18_045_551_234, "+18045551234"),
        ("+68849", "68849"),
        ("+47123456", "47123456"),
        ("19123456", "19123456"),
        ("7", "7"),
        ("Müller", "müller"),
        ("InfoSMS-Service", "infosms-service"),
        ("+3370005123456789", "+3370005123456789"),
        ("whatsapp:+18045551234", "whatsapp:+18045551234"),
    ],
)
def test_a_sender_is_kept_as_written_if_it_cannot_be_normalised(written: object, key: str) -> None:
    message = parse_message(SMS_PATH, {**SMS, "from": written}).message

    assert (message.from_key, message.warnings) == (key, [])


@pytest.mark.parametrize(
    ("written", "address", "name", "is_warned"),
    [
        ("ann@example.com (Ann Doe)", "ann@example.com", None, False),
        ("Ann (x) <ann(y)@example.com(z)>", "ann@example.com", "Ann", False),
        ("Ann Doe ann@example.com", "ann@example.com", None, False),
        ("Ann <ann@example.com>, ben@example.com", "ann@example.com", "Ann", True),
        ("ann@example.com ben@example.com", "ann@example.com", None, True),
        (["Ann <ann@example.com>"], "ann@example.com", "Ann", False),
        ([{}, "ann@example.com", "ben@example.com"], "ann@example.com", None, True),
        ("mailto:ann@example.com", "ann@example.com", None, False),
        ("ann@example.com;", "ann@example.com", None, False),
        ("'ann@example.com'", "ann@example.com", None, False),
        ("Ann <'ann@example.com'>", "ann@example.com", "Ann", False),
        ("\u202aann@example.com\u200b", "ann@example.com", None, False),
        ("MAILER-DAEMON (Mail Delivery System)", "MAILER-DAEMON (Mail Delivery System)", None, False),
        ("Mail Delivery System <MAILER-DAEMON>", "MAILER-DAEMON", "Mail Delivery System", False),
    ],
)
def test_an_address_of_an_email_may_be_written_as_in_a_header(
    written: object, address: str, name: str | None, *, is_warned: bool
) -> None:
    incoming = parse_message(EMAIL_PATH, {**EMAIL, "from": written})

    assert (incoming.message.from_, incoming.message.from_name) == (address, name)
    assert ("from: has several addresses; the first one is used" in incoming.message.warnings) is is_warned


@pytest.mark.parametrize(
    "withheld",
    [
        *(MISSING, None, "", "  ", "Anonymous", "+266696687", "266696687"),
        *("No Caller ID", "Private Number", "unknown caller", "N/A", "null", "+", "***"),
    ],
)
def test_withheld_senders_are_not_one_person(withheld: object) -> None:
    payload = without(SMS, "from") | ({} if withheld is MISSING else {"from": withheld})
    first = parse_message(SMS_PATH, payload).message
    second = parse_message(SMS_PATH, {**payload, "messaging_provider_id": "message-2"}).message

    assert first.from_ == (str(withheld).strip() if withheld not in {MISSING, None, "", "  "} else "unknown")
    assert first.conversation_key != second.conversation_key
    assert first == parse_message(SMS_PATH, payload).message


@pytest.mark.parametrize(
    "fields",
    [
        {"body": "another text"},
        {"from": "private"},
        {"to": "+12016661235"},
        {"to": ["+12016661234", "+12016661235"]},
        {"timestamp": "2024-11-01T14:00:01Z"},
        {"attachments": ["https://a.example/b"]},
    ],
)
def test_withheld_senders_of_messages_with_the_same_id_are_not_one_person(fields: dict[str, Any]) -> None:
    payload = {**SMS, "from": "anonymous"}
    first, second = (parse_message(SMS_PATH, each).message for each in (payload, {**payload, **fields}))

    assert first.from_key != second.from_key
    assert first.conversation_key != second.conversation_key


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("body", "half of one \ud83d", "half of one \ufffd"),
        ("body", "me\0example.com", "me\ufffdexample.com"),
        ("attachments", ["javascript:x", "https://a.example/b"], ["https://a.example/b"]),
        ("attachments", 5, []),
        ("attachments", [f"a{number}" for number in range(11)], [f"a{number}" for number in range(10)]),
        ("timestamp", "soon", NOW),
        ("subject", "x" * 999, "x" * 998),
    ],
)
def test_a_field_that_can_only_be_read_in_part_is_named_in_the_warnings(
    field: str, value: object, expected: object
) -> None:
    message = parse_message(SMS_PATH, {**SMS, field: value}).message

    assert getattr(message, field) == expected
    [warning] = message.warnings
    assert warning.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("type_", "attachments", "expected"),
    [
        ("sms", [], MessageType.SMS),
        ("MMS", [], MessageType.MMS),
        ("fax", [], MessageType.SMS),
        (None, ["a"], MessageType.MMS),
        ("sms", ["a"], MessageType.MMS),
    ],
)
def test_attachments_make_an_mms(type_: object, attachments: list[str], expected: MessageType) -> None:
    assert (
        parse_message(SMS_PATH, {**SMS, "type": type_, "attachments": attachments}).message.type == expected
    )


def test_a_message_may_be_empty() -> None:
    message = parse_message(SMS_PATH, without(SMS, "body", "attachments")).message

    assert (message.body, message.attachments) == ("", [])


def test_an_id_that_is_used_for_different_messages_does_not_make_them_one() -> None:
    different: list[dict[str, Any]] = [
        {},
        {"body": "another text"},
        {"from": "+18045551235"},
        {"to": "+12016661235"},
        {"attachments": ["https://a.example/b"]},
    ]
    ids = {parse_message(SMS_PATH, {**SMS, **fields}).message.id for fields in different}

    assert len(ids) == len(different)


@pytest.mark.parametrize("id_", [MISSING, None, "", "x" * 256, "a\nb"])
def test_a_message_without_an_id_is_identified_by_its_content(id_: object) -> None:
    payload = {**SMS, "messaging_provider_id": id_}
    if id_ is MISSING:
        del payload["messaging_provider_id"]
    message = parse_message(SMS_PATH, payload).message

    assert message == parse_message(SMS_PATH, payload).message
    assert message.id != parse_message(SMS_PATH, {**payload, "body": "another"}).message.id
    assert message.provider_message_id


def test_a_time_ahead_of_ours_counts_as_now() -> None:
    message = parse_message(SMS_PATH, {**SMS, "timestamp": "9999-12-31T23:59:59Z"}).message

    assert message.timestamp == NOW


# --- Receipts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("sent", Status.SENT),
        ("delivered", Status.DELIVERED),
        ("undelivered", Status.UNDELIVERED),
        ("bounced", Status.UNDELIVERED),
        ("rejected", Status.UNDELIVERED),
        ("failed", Status.FAILED),
        ("Delivered", Status.DELIVERED),
        (" DELIVRD ", Status.DELIVERED),
        ("UNDELIV", Status.UNDELIVERED),
        ("undeliverable", Status.UNDELIVERED),
        ("EXPIRED", Status.UNDELIVERED),
        ("REJECTD", Status.UNDELIVERED),
        ("Hard-Bounce", Status.UNDELIVERED),
        ("enroute", Status.SENT),
        ("ACCEPTD", Status.SENT),
        ("partially_delivered", Status.SENT),
        ("partiallyDelivered", Status.SENT),
        ("in transit", Status.SENT),
        ("Cancelled", Status.CANCELED),
    ],
)
@pytest.mark.parametrize("path", [SMS_STATUS_PATH, EMAIL_STATUS_PATH])
def test_the_statuses_of_receipts(path: str, word: str, status: Status) -> None:
    assert parse_receipt(path, {**PAYLOADS[path], "status": word}).status is status


def test_a_receipt() -> None:
    payload = {**SMS_RECEIPT, "status": "failed", "error_code": 30_003, "timestamp": "2024-11-01T14:00:00Z"}
    receipt = parse_receipt(SMS_STATUS_PATH, payload)

    assert (receipt.channel, receipt.provider) == (Channel.SMS, "generic_sms")
    assert (receipt.provider_message_id, receipt.message_id) == ("message-1", None)
    assert (receipt.error_code, receipt.occurred_at) == ("30003", datetime(2024, 11, 1, 14, tzinfo=UTC))
    assert receipt.raw == payload


def test_a_receipt_has_the_same_id_whenever_it_is_delivered() -> None:
    first = parse_receipt(EMAIL_STATUS_PATH, EMAIL_RECEIPT)
    again = parse_receipt(EMAIL_STATUS_PATH, {**EMAIL_RECEIPT, "error_code": "1"})
    other = parse_receipt(EMAIL_STATUS_PATH, {**EMAIL_RECEIPT, "status": "sent"})

    assert receipt_id(first) == receipt_id(again) != receipt_id(other)
    assert first.occurred_at == NOW


@pytest.mark.parametrize(
    ("word", "code", "shown", "detail"),
    [
        ("frobnicated", None, "frobnicated", None),
        ("two\n words", 7, "7", "two words"),
        (4, None, "4", None),
        ("x" * 100, None, "x" * 64, None),
    ],
)
def test_an_unknown_word_is_kept(word: object, code: object, shown: str, detail: str | None) -> None:
    receipt = parse_receipt(SMS_STATUS_PATH, {**SMS_RECEIPT, "status": word, "error_code": code})

    assert (receipt.status, receipt.error_code, receipt.error_detail) == (Status.UNKNOWN, shown, detail)
    assert receipt_id(receipt) != receipt_id(parse_receipt(SMS_STATUS_PATH, {**SMS_RECEIPT, "status": "y"}))


@pytest.mark.parametrize(("given_id", "id_"), [(42, "42"), (4.0, "4"), (2**70, str(2**70))])
def test_the_id_of_a_receipt_may_be_a_number(given_id: object, id_: str) -> None:
    receipt = parse_receipt(SMS_STATUS_PATH, {**SMS_RECEIPT, "messaging_provider_id": given_id})

    assert receipt.provider_message_id == id_


@pytest.mark.parametrize(
    "time",
    ["soon", "", [], True, None, "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"],
)
def test_a_receipt_counts_from_its_arrival_if_its_time_is_invalid_or_in_the_future(time: object) -> None:
    assert parse_receipt(SMS_STATUS_PATH, {**SMS_RECEIPT, "timestamp": time}).occurred_at == NOW


@pytest.mark.parametrize("path", [SMS_STATUS_PATH, EMAIL_STATUS_PATH])
@fuzzed
@given(data=st.data())
def test_a_receipt_with_an_id_and_a_word_is_accepted_whatever_else_it_contains(
    path: str, data: st.DataObject
) -> None:
    texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.isalnum)
    word = data.draw(texts | st.integers())
    anything = data.draw(
        st.dictionaries(st.sampled_from(["timestamp", "error_code", "to", "email"]), some_json)
    )
    payload = {**PAYLOADS[path], **anything, "status": word}

    [receipt] = parse(path, json.dumps(payload).encode(), JSON).receipts
    assert receipt.occurred_at <= NOW


@pytest.mark.parametrize(
    ("receipt", "is_unnamed", "recipients"),
    [
        ({"status": "bounced"}, True, []),
        ({"status": "Hard-Bounce", "error_code": "5.1.1"}, True, []),
        ({"status": "bounced", "to": "Ann <Ann@Example.com>"}, False, ["ann@example.com"]),
        ({"status": "bounced", "to": 5, "email": "?", "recipient": "a@b.example"}, False, ["a@b.example"]),
        ({"status": "bounced", "error_code": "4.2.2"}, False, []),
        ({"status": "soft_bounce"}, False, []),
        ({"status": "undelivered"}, False, []),
    ],
)
def test_a_hard_bounce_of_an_email_concerns_its_recipient(
    *, receipt: dict[str, Any], is_unnamed: bool, recipients: list[str]
) -> None:
    content = parse(EMAIL_STATUS_PATH, json_bytes({**EMAIL_RECEIPT, **receipt}), JSON)

    assert [each.is_bounce for each in content.receipts] == [is_unnamed]
    assert [change.theirs for change in content.suppressions] == recipients
    of_sms = parse(SMS_STATUS_PATH, json_bytes({**SMS_RECEIPT, **receipt}), JSON)
    assert (of_sms.receipts[0].is_bounce, of_sms.suppressions) == (False, [])


@pytest.mark.parametrize("word", ["complaint", "Spam-Report", "complained"])
def test_a_complaint_about_an_email_suppresses_its_recipient(word: str) -> None:
    named, unnamed = (
        parse(EMAIL_STATUS_PATH, json_bytes({**EMAIL_RECEIPT, "status": word, **recipient}), JSON)
        for recipient in ({"to": "ann@example.com"}, {})
    )

    [change] = named.suppressions
    assert (change.theirs, change.source) == ("ann@example.com", SuppressionSource.SPAM_REPORT)
    assert [(each.status, each.is_bounce) for each in unnamed.receipts] == [(Status.UNKNOWN, True)]


@pytest.mark.parametrize(
    ("code", "text"),
    [(30_003, "30003"), (1.0, "1"), (-5, "-5"), ("E1", "E1"), ("a\nb", "a b"), (None, None), ([], None)],
)
def test_an_error_code_is_a_number_or_a_text(code: object, text: str | None) -> None:
    assert parse_receipt(SMS_STATUS_PATH, {**SMS_RECEIPT, "error_code": code}).error_code == text


# --- Responses ----------------------------------------------------------------------------------------


def test_the_responses_have_our_id_and_the_status() -> None:
    message = parse(SMS_PATH, json_bytes(SMS), JSON)
    receipt = parse(SMS_STATUS_PATH, json_bytes(SMS_RECEIPT), JSON)

    answer = webhook_at(SMS_PATH).respond(message)
    assert answer == Received(id=message.messages[0].message.id, status=Status.RECEIVED)
    answer = webhook_at(SMS_STATUS_PATH).respond(receipt)
    assert answer == Received(id=receipt_id(receipt.receipts[0]), status=Status.DELIVERED)


# --- Faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (SMS_PATH, "from", []),
        (SMS_PATH, "to", MISSING),
        (SMS_PATH, "to", ""),
        (SMS_PATH, "body", {}),
        (EMAIL_PATH, "to", 1.5),
        (EMAIL_PATH, "subject", ["a", "b"]),
        (SMS_STATUS_PATH, "messaging_provider_id", MISSING),
        (SMS_STATUS_PATH, "status", MISSING),
        (SMS_STATUS_PATH, "status", " "),
        (SMS_STATUS_PATH, "status", ["delivered"]),
        (EMAIL_STATUS_PATH, "xillio_id", None),
    ],
)
def test_an_invalid_field_is_named(path: str, field: str, value: object) -> None:
    name = field.partition(".")[0]
    payload = without(PAYLOADS[path], name) | ({} if value is MISSING else {name: value})

    assert invalid_fields(path, json_bytes(payload), JSON) == {field}


def test_every_invalid_field_is_named() -> None:
    payload: dict[str, Any] = {**SMS, "from": {}, "to": {}, "body": {}}

    assert invalid_fields(SMS_PATH, json_bytes(payload), JSON) == {"from", "to", "body"}


@pytest.mark.parametrize("path", PAYLOADS)
@pytest.mark.parametrize("value", [None, [], "text", 5, True])
def test_a_webhook_must_be_an_object(path: str, value: object) -> None:
    assert invalid_fields(path, json_bytes(value), JSON) == {"body"}


@pytest.mark.parametrize("path", PAYLOADS)
@pytest.mark.parametrize("body", UNREADABLE_JSON)
def test_malformed_json_is_unreadable(path: str, body: bytes) -> None:
    with pytest.raises(UnreadableWebhookError):
        parse(path, body, JSON)


@pytest.mark.parametrize(
    ("body", "charset", "read"),
    [
        (b"caf\xc3\xa9", "", "café"),
        (b"caf\xe9", "; charset=ISO-8859-1", "café"),
        (b"caf\xc3\xa9", '; charset="iso-8859-1"', "café"),
        (b"caf\xe9", "", "café"),
        (b"\x82\xa0\x82\xa2", "; charset=Shift_JIS", "あい"),
        (b"a\tb\nc", "", "a\tb\nc"),
        (b"NaN", "", "NaN"),
    ],
)
def test_json_in_any_charset_is_read(body: bytes, charset: str, read: str) -> None:
    content = json_bytes({**SMS, "body": "?", "cost": 7}).replace(b"?", body).replace(b" 7", b" NaN")

    [incoming] = parse(SMS_PATH, content, {"content-type": f"application/json{charset}"}).messages

    assert incoming.message.body == read
    assert incoming.raw["cost"] is None


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig"])
def test_json_with_a_byte_order_mark_is_read(codec: str) -> None:
    content = json.dumps({**SMS, "body": "STOP €"}, ensure_ascii=False).encode(codec)

    [incoming] = parse(SMS_PATH, content, JSON).messages

    assert incoming.message.body == "STOP €"


def test_the_bytes_of_json_that_cannot_be_decoded_are_kept() -> None:
    content = json_bytes({**SMS, "body": "?"}).replace(b"?", b"caf\xe9")

    [incoming] = parse(SMS_PATH, content, JSON).messages

    assert incoming.message.warnings == [
        "Some characters could not be decoded; the bytes are kept in the raw payload"
    ]
    assert b64decode(incoming.raw["undecoded_bytes"]) == content


@pytest.mark.parametrize("path", [SMS_STATUS_PATH, EMAIL_STATUS_PATH])
def test_a_lone_surrogate_in_a_receipt_is_replaced(path: str) -> None:
    receipt = parse_receipt(path, {**PAYLOADS[path], "error_code": "E\ud800", "extra": ["\ud800"]})

    assert (receipt.error_code, receipt.raw["extra"]) == ("E\ufffd", ["\ufffd"])


@pytest.mark.parametrize("path", PAYLOADS)
@fuzzed
@given(data=st.data())
def test_any_webhook_is_tolerated(path: str, data: st.DataObject) -> None:
    value = data.draw(some_json | changed(PAYLOADS[path]))
    require_tolerated(path, json.dumps(value).encode(), JSON)


# --- Signatures ---------------------------------------------------------------------------------------

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def headers_of(body: str, *, secret: str = SECRET, age: timedelta = timedelta(0)) -> dict[str, str]:
    """Return the headers of a webhook that was signed some time ago."""
    signed_at = datetime.now(UTC) - age
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(signed_at.timestamp())),
        "webhook-signature": StandardWebhook(secret).sign("msg_1", signed_at, body),
    }


def refusal(body: bytes, headers: dict[str, str], *, secrets: str = SECRET) -> Refusal | None:
    return WebhookSecrets.parse(secrets).verify(signed(body, headers))


def signed(body: bytes, headers: dict[str, str]) -> WebhookRequest:
    return request(body, {**JSON, **headers}, received_at=datetime.now(UTC))


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_a_signature_by_any_of_the_secrets_is_genuine(secret: str, separator: str) -> None:
    secrets = f"{SECRET}{separator}{OTHER_SECRET}"

    assert refusal(b"{}", headers_of("{}", secret=secret), secrets=secrets) is None


@pytest.mark.parametrize(
    ("body", "secret", "age"),
    [
        ('{"another": "body"}', SECRET, timedelta(0)),
        ("{}", OTHER_SECRET, timedelta(0)),
        ("{}", SECRET, timedelta(minutes=6)),
        ("{}", SECRET, timedelta(minutes=-6)),
    ],
)
def test_another_body_secret_or_time_is_refused(body: str, secret: str, age: timedelta) -> None:
    assert refusal(b"{}", headers_of(body, secret=secret, age=age)) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize(
    "header",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": "nan"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,*"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v2,abcd"},
        {"webhook-signature": ""},
    ],
)
def test_a_malformed_signature_is_refused(header: dict[str, str]) -> None:
    assert refusal(b"{}", {**headers_of("{}"), **header}) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(header: str) -> None:
    assert refusal(b"{}", without(headers_of("{}"), header)) is Refusal.WRONG_SIGNATURE


def test_a_body_that_is_not_text_can_be_signed() -> None:
    body, headers = '{"body": "é"}'.encode("utf-16"), headers_of("{}")
    signed_text = f"msg_1.{headers['webhook-timestamp']}.".encode() + body
    key = b64decode(SECRET.removeprefix("whsec_"))
    signature = b64encode(hmac.digest(key, signed_text, "sha256")).decode()

    assert refusal(body, headers) is Refusal.WRONG_SIGNATURE
    assert refusal(body, {**headers, "webhook-signature": f"v1,{signature}"}) is None


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200), st.integers(0), flips)
def test_a_flipped_byte_is_refused(text: str, position: int, by: int) -> None:
    headers = headers_of(text)

    assert refusal(text.encode(), headers) is None
    assert refusal(flipped(text.encode(), position, by), headers) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("text", ["topsecret", "whsec_", "whsec_*", f"{SECRET},topsecret"])
def test_a_malformed_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        create_verifier(GENERIC_SMS, webhook_secret=text)
    assert caught.value.faults == ("WEBHOOK_SECRET: must be whsec_ and base64",)


@pytest.mark.usefixtures("no_environment")
@pytest.mark.parametrize("provider", [GENERIC_SMS, GENERIC_EMAIL])
def test_the_verifier_needs_the_secret(provider: Any) -> None:  # noqa: ANN401 - either of the two
    assert create_verifier(provider) is None
    verifier = create_verifier(provider, webhook_secret=SECRET)
    assert verifier
    assert verifier(signed(b"{}", headers_of("{}"))) is None
