"""SendGrid's webhooks: their content, and their signatures as SendGrid's own library verifies them."""

import base64
import codecs
import json
import string
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from sendgrid.helpers.eventwebhook import EventWebhook

from shared.channels import Channel, MessageType
from shared.events import receipt_id
from shared.ids import conversation_key
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers.registry import create_verifier
from shared.providers.sendgrid import SENDGRID
from shared.providers.sendgrid.events import AcceptedEvents
from shared.providers.sendgrid.inbound import AcceptedEmail
from shared.providers.sendgrid.signature import SendGridKey
from shared.providers.webhooks import (
    InvalidWebhookError,
    Refusal,
    UnreadableWebhookError,
    WebhookContent,
    WebhookRequest,
)
from shared.settings import SettingsError
from shared.status import Status
from tests.mails import Fields, mixed, parsed_mails, plain, post_of, raw_mails
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
    some_json,
    webhook_at,
    without,
)
from tests.webhooks import (
    BOUNDARY,
    DELIVERED,
    JSON,
    KEY,
    MAIL,
    MULTIPART,
    PUBLIC_KEY,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    by_sendgrid,
    events,
    multipart,
)

Files = Mapping[str, tuple[str, str, bytes]]

# --- E-mails ------------------------------------------------------------------------------------------


def parse_emails(fields: Mapping[str, str | bytes], files: Files | None = None) -> list[IncomingMessage]:
    return parse(SENDGRID_INBOUND, multipart(fields, files), MULTIPART).messages


def parse_email(fields: Mapping[str, str | bytes], files: Files | None = None) -> IncomingMessage:
    [incoming] = parse_emails(fields, files)
    return incoming


def test_an_email() -> None:
    incoming = parse_email(MAIL)
    message = incoming.message

    assert (message.type, message.from_, message.to) == (
        MessageType.EMAIL,
        "ann@example.com",
        "us@example.org",
    )
    assert (message.provider, message.subject, message.body) == ("sendgrid", "Hello", "<p>Hello!</p>")
    assert (message.provider_message_id or "").startswith("<1@example.com>#")
    assert (message.email_id, message.timestamp, message.created_at) == ("<1@example.com>", NOW, NOW)
    assert incoming.keyword is None
    assert incoming.raw == {"fields": MAIL, "files": [], "cut": []}


@pytest.mark.parametrize(
    ("headers", "references"),
    [
        ("Message-ID: <3@b.c>\nReferences: <1@b.c>\n\t<2@b.c>\nSubject: <4@b.c>\n", ["<1@b.c>", "<2@b.c>"]),
        ("Message-ID: <3@b.c>\nIn-Reply-To: <2@b.c>\n", ["<2@b.c>"]),
        ("Message-ID: <3@b.c>\nX-References: <1@b.c>\n", []),
    ],
)
def test_an_email_keeps_the_references_of_its_headers(headers: str, references: list[str]) -> None:
    assert parse_email({**MAIL, "headers": headers}).message.references == references


@pytest.mark.parametrize(
    ("email", "count"), [("ben@example.com", 1), ("Ben@Example.com", 1), ("copy@example.com", 0)]
)
def test_a_copy_has_no_receipts_of_its_own(email: str, count: int) -> None:
    event = {**DELIVERED, "event": "bounce", "email": email, "recipient": "ben@example.com"}
    content = parse(SENDGRID_EVENTS, json.dumps([event]).encode(), JSON)

    assert len(content.receipts) == count
    assert len(content.suppressions) == 1


def test_the_response_has_the_ids_of_the_messages() -> None:
    [incoming] = parse_emails(MAIL)
    answer = webhook_at(SENDGRID_INBOUND).respond(WebhookContent(messages=[incoming]))

    assert answer == AcceptedEmail(ids=[incoming.message.id])


@pytest.mark.parametrize(
    ("html", "text", "body"),
    [
        ("<p>a</p>", "a", "<p>a</p>"),
        (" \n", "a", "a"),
        (None, "a", "a"),
        (None, None, ""),
        ("<p>a</p>", None, "<p>a</p>"),
    ],
)
def test_the_body_is_the_html_or_else_the_text(html: str | None, text: str | None, body: str) -> None:
    versions = {"html": html, "text": text}
    fields = without(MAIL, "html", "text") | {name: v for name, v in versions.items() if v is not None}

    assert parse_email(fields).message.body == body


@pytest.mark.parametrize(
    ("charset", "written", "read"),
    [
        ("UTF-8", "Zoë €".encode(), "Zoë €"),
        ("iso-8859-1", b"Zo\xeb \x80", "Zoë €"),
        ("us-ascii", b"Zo\xeb", "Zoë"),
        ("windows-1251", "Привет".encode("cp1251"), "Привет"),
        ("shift_jis", "こんにちは".encode("shift_jis"), "こんにちは"),
        ("utf-16", "Zoë".encode("utf-16"), "Zoë"),
        ("utf-8", b"a\xffb", "aÿb"),
        ("utf-8", "a€".encode() + b"\xffb", "a€\ufffdb"),
        ("utf-7", b"+2AA-", "+2AA-"),
        ("x-unknown", "Zoë".encode(), "Zoë"),
        ("", "Zoë".encode(), "Zoë"),
        ("zlib", b"a", "a"),
        ("idna", b"a", "a"),
        ("punycode", b"a-b", "a-b"),
        ("unicode_escape", rb"\d", r"\d"),
        ("undefined", b"a", "a"),
        ("a\x00b", b"a", "a"),
        ("é" * 5_000, b"a", "a"),
    ],
)
def test_texts_are_decoded_from_the_named_charset(charset: str, written: bytes, read: str) -> None:
    charsets = json.dumps({"text": charset, "subject": charset})
    incoming = parse_email(
        {**without(MAIL, "html"), "text": written, "subject": written, "charsets": charsets}
    )

    assert incoming.message.body == read
    assert incoming.message.subject == read
    assert incoming.raw["fields"]["text"] == read


def test_a_name_that_no_charset_can_have_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set[str]()
    known = codecs.lookup

    def look_up(name: str) -> codecs.CodecInfo:
        names.add(name)  # Python would remember each of them
        return known(name)

    monkeypatch.setattr(codecs, "lookup", look_up)
    charsets = json.dumps({"html": "x" * 1_000, "text": "no\ncharset", "subject": ""})

    assert parse_email({**MAIL, "charsets": charsets}).message.body == "<p>Hello!</p>"
    assert names <= {"utf-8"}


@pytest.mark.parametrize(
    "charsets", ["", "utf-8", "[]", "null", '{"text": 5}', '{"text": null}', "[" * 100_000]
)
def test_unreadable_charsets_are_ignored(charsets: str) -> None:
    assert parse_email({**MAIL, "charsets": charsets}).message.body == "<p>Hello!</p>"


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        ("Ann Example <ann@example.com>", "ann@example.com"),
        ("ann@example.com", "ann@example.com"),
        ("Ann @ Example, Inc. <ann@example.com>", "ann@example.com"),
        ("x" * 500 + " <Ann@example.com>", "Ann@example.com"),
        ("casey@example.com (Casey Customer)", "casey@example.com"),
        ("Casey <casey@example.com> (via web)", "casey@example.com"),
        ("Casey <casey@example.com>,", "casey@example.com"),
        ("Casey <mailto:casey@example.com>", "casey@example.com"),
        ("Ann <ann@example.com>, Bob <bob@example.com>", "ann@example.com"),
        ('"Doe, Ann" <ann@example.com>', "ann@example.com"),
        ("Doe, Ann <ann@example.com>", "ann@example.com"),
        ("MAILER-DAEMON (Mail Delivery System)", "MAILER-DAEMON"),
        ("Mail Delivery System <MAILER-DAEMON>", "MAILER-DAEMON"),
        ("root (Cron Daemon)", "root"),
        ("Ann <ann..doe@example.com>", "ann..doe@example.com"),
        ("Ann <ann.@example.com>", "ann.@example.com"),
        ('"ann doe"@example.com', '"ann doe"@example.com'),
        ("root@web_1.example.com", "root@web_1.example.com"),
        ("nas@storage.local", "nas@storage.local"),
        ("root@fileserver", "root@fileserver"),
        ("root@[192.0.2.7]", "root@[192.0.2.7]"),
        ("", "unknown"),
        ("<>", "unknown"),
    ],
)
def test_the_sender_is_the_first_author_as_far_as_it_can_be_read(header: str, sender: str) -> None:
    assert parse_email({**MAIL, "from": header}).message.from_ == sender


@pytest.mark.parametrize(
    ("headers", "posted", "sender"),
    [
        ("From: =?utf-8?q?Doe=2C_Ann?= <ann@example.com>", "Doe, Ann <ann@example.com>", "ann@example.com"),
        ("From: =?utf-8?B?QW5uIDxhbm5AZXhhbXBsZS5jb20+?=", "", "ann@example.com"),
        ("From: undisclosed\nSender: Ben <ben@example.com>", "undisclosed", "ben@example.com"),
        ("Sender: Ben <ben@example.com>", "", "ben@example.com"),
    ],
)
def test_the_headers_tell_what_the_posted_sender_does_not(headers: str, posted: str, sender: str) -> None:
    assert parse_email({**MAIL, "headers": headers, "from": posted}).message.from_ == sender


def test_an_email_without_a_sender_is_a_conversation_of_its_own() -> None:
    messages = [
        parse_email({**without(MAIL, "from"), "headers": headers}).message for headers in ("A: 1", "A: 2")
    ]

    assert [message.from_ for message in messages] == ["unknown", "unknown"]
    assert len({message.conversation_key for message in messages}) == 2


def test_an_email_is_one_message_for_each_address_that_it_was_delivered_to() -> None:
    envelope = '{"to": ["us@example.org", "Ben@example.org", "US@example.org"], "from": ""}'
    messages = [each.message for each in parse_emails({**MAIL, "envelope": envelope})]

    assert [message.to for message in messages] == ["US@example.org", "Ben@example.org"]
    assert len({message.id for message in messages}) == 2
    assert [message.conversation_key for message in messages] == [
        conversation_key(Channel.EMAIL, ["ann@example.com", ours])
        for ours in ("us@example.org", "ben@example.org")
    ]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"spam_score": "0.1"}, True),
        ({"headers": MAIL["headers"] + "Date: Fri, 2 Jan 2026 10:00:00 +0000\n"}, False),
        ({"text": "Another order"}, False),
        ({"headers": "Message-ID: <2@example.com>\n"}, False),
        ({"headers": "Message-ID:\nSubject: <1@example.com>\n"}, False),
        ({"headers": ""}, False),
        ({"envelope": '{"to": ["us@example.org"], "from": "eve@example.com"}'}, False),
        ({"envelope": '{"to": ["them@example.org"], "from": "bounces@example.com"}'}, False),
    ],
)
def test_an_email_is_identified_by_its_content_and_its_envelope(
    changes: dict[str, str], *, same: bool
) -> None:
    first, second = parse_email(MAIL), parse_email({**MAIL, **changes})

    assert (first.message.id == second.message.id) is same


def test_an_email_without_a_message_id_has_the_same_id_whenever_it_is_delivered() -> None:
    first, second = (parse_email(without(MAIL, "headers")) for _ in range(2))

    assert first.message.id == second.message.id


def test_an_email_has_the_same_id_whatever_the_boundary_of_its_form() -> None:
    body = multipart(MAIL).replace(BOUNDARY.encode(), b"another")
    [repeated] = parse(
        SENDGRID_INBOUND, body, {"content-type": "multipart/form-data; boundary=another"}
    ).messages

    assert repeated.message.id == parse_email(MAIL).message.id


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("<>", "<>"),
        ("", ""),
        ("<2026 1.GA1@host.example>", "<2026 9.GA9@host.example>"),
        ("< a@host.example>", "< b@host.example>"),
        ("(added by pm) <a@host.example>", "(added by pm) <b@host.example>"),
        ("<same@host.example>", "<same@host.example>"),
    ],
)
def test_different_emails_are_different_messages(first: str, second: str) -> None:
    ids = {
        parse_email({**MAIL, "headers": f"Message-ID: {id_}\n", "text": text}).message.id
        for id_, text in ((first, "order 1"), (second, "order 2"))
    }

    assert len(ids) == 2


@pytest.mark.parametrize(
    ("written", "email_id"),
    [
        ("<a@host.example>", "<a@host.example>"),
        ("(added by pm) <a@host.example>", "<a@host.example>"),
        ("< a@host.example >", "<a@host.example>"),
        ("\n <a@host.example>", "<a@host.example>"),
        ("a@host.example", "<a@host.example>"),
        ("<>", None),
        ("none", None),
    ],
)
def test_the_message_id_is_found_in_its_header(written: str, email_id: str | None) -> None:
    assert parse_email({**MAIL, "headers": f"message-id: {written}\n"}).message.email_id == email_id


HOUR = timedelta(hours=1)


def at(moment: datetime, *, header: str = "Date") -> str:
    before = "by mx.example.com; " if header == "Received" else ""
    return f"{header}: {before}{format_datetime(moment)}\n"


@pytest.mark.parametrize(
    ("headers", "written_at"),
    [
        (at(NOW - HOUR), NOW - HOUR),
        (at(NOW - timedelta(days=7)), NOW - timedelta(days=7)),
        (at(NOW + timedelta(seconds=1)), NOW),
        (at(NOW + timedelta(days=9_000)), NOW),
        (at(NOW - timedelta(days=9_000)), NOW),
        (at(NOW - HOUR, header="Received") + at(NOW - timedelta(days=9_000)), NOW - HOUR),
        (at(NOW - HOUR, header="Received") + "Date: yesterday\n", NOW - HOUR),
        (at(NOW + HOUR, header="Received") + "Date: yesterday\n", NOW),
        ("Date: Fri, 2 Jan 2026 04:04:05 +0200 (EET)\n", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        ("Date: 1 Jan 26 22:04 EST\n", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("Date: Fri,\n 2 Jan 2026 03:03:60 GMT\n", datetime(2026, 1, 2, 3, 3, 59, tzinfo=UTC)),
        ("Date: Fri, 2 Jan 99999 03:03:60 +9999999999\n", NOW),
    ],
)
def test_the_timestamp_is_the_time_in_the_headers_if_it_is_plausible(
    headers: str, written_at: datetime
) -> None:
    message = parse_email({**MAIL, "headers": headers}).message

    assert (message.timestamp, message.created_at) == (written_at, NOW)


def test_files_are_only_described() -> None:
    incoming = parse_email(
        MAIL,
        {
            "attachment1": ("C:\\temp\\offer.pdf", "application/pdf", b"\x00\xff" * 500),
            "attachment2": ("../../etc/passwd", "text/plain", b""),
        },
    )

    assert incoming.message.attachments == []
    assert incoming.raw["files"] == [
        {"field": "attachment1", "name": "offer.pdf", "type": "application/pdf", "size": 1_000},
        {"field": "attachment2", "name": "passwd", "type": "text/plain", "size": 0},
    ]


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"html": "<p>" + "x" * 2_000_000, "text": "short"}, "short"),
        ({"html": "é" * 1_000_000, "text": "\x00" * 1_000_000}, "é" * 1_000),
        ({"html": "\x01" * 400_000, "text": "\\" * 400_000}, "\ufffd" * 1_000),
        ({"html": '"' * 150_000, "text": "x" * 100_000}, "x" * 1_000),
        ({f"field{number}": "\x01" * 20_000 for number in range(80)}, "<p>Hello!</p>"),
    ],
)
def test_a_large_email_is_cut_to_fit_into_the_stream(fields: dict[str, str], body: str) -> None:
    incoming = parse_email({**MAIL, **fields})

    assert incoming.message.body.startswith(body)
    assert incoming.raw["cut"]
    assert set(incoming.raw["cut"]) <= set(fields)
    assert incoming.raw["fields"]["envelope"] == MAIL["envelope"]


def test_an_email_of_thirty_megabytes_is_parsed() -> None:
    max_size = webhook_at(SENDGRID_INBOUND).max_size
    content = b"\r\n--xYz" * ((max_size - 4 * 1024) // 7)
    incoming = parse_email(MAIL, {"attachment1": ("a", "b/c", content)})

    assert max_size == 30 * 1024 * 1024
    assert [file["size"] for file in incoming.raw["files"]] == [len(content)]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"envelope": "", "to": ""}, "envelope"),
        ({"envelope": "", "to": "undisclosed-recipients:;"}, "envelope"),
        ({"envelope": json.dumps({"to": [f"u{number}@example.org" for number in range(501)]})}, "envelope"),
    ],
)
def test_an_email_needs_recipients(changes: dict[str, str], fault: str) -> None:
    assert invalid_fields(SENDGRID_INBOUND, multipart({**MAIL, **changes}), MULTIPART) == {fault}


@pytest.mark.parametrize("envelope", ["", "{}", "[]", "null", '{"to": []}', '{"to": [5]}', "[" * 100_000])
def test_the_headers_replace_an_unreadable_envelope(envelope: str) -> None:
    headers = "To: Us <us@example.org>,\n them@example.org\nCc: Ben <ben@example.org>\n"
    fields = {"envelope": envelope, "headers": headers}
    messages = [incoming.message for incoming in parse_emails({**MAIL, **fields})]

    assert [message.to for message in messages] == ["us@example.org", "them@example.org", "ben@example.org"]
    assert any("envelope" in warning for warning in messages[0].warnings)
    assert parse_email({**MAIL, "envelope": envelope}).message.to == "us@example.org"


def test_an_odd_recipient_does_not_affect_the_others() -> None:
    envelope = json.dumps({"to": ["us@example.org", "sales..eu@example.org", "nobody", None, ""], "from": 5})
    messages = [incoming.message for incoming in parse_emails({**MAIL, "envelope": envelope})]

    assert [message.to for message in messages] == ["us@example.org", "sales..eu@example.org", "nobody"]
    assert messages[0].warnings == ["A recipient in the envelope could not be read"]


def test_an_email_may_have_many_recipients() -> None:
    recipients = [f"u{number}@example.org" for number in range(300)]
    messages = parse_emails({**MAIL, "html": "x" * 500_000, "envelope": json.dumps({"to": recipients})})

    assert [incoming.message.to for incoming in messages] == recipients


@pytest.mark.parametrize("field", ["from", "envelope", "subject", "html", "text", "headers"])
def test_the_first_of_repeated_fields_counts(field: str) -> None:
    end = f"--{BOUNDARY}--\r\n".encode()
    [incoming] = parse(
        SENDGRID_INBOUND, multipart(MAIL).removesuffix(end) + multipart({field: "x"}), MULTIPART
    ).messages

    assert incoming.raw["fields"] == MAIL
    assert incoming.message.warnings == [f"The field {field} occurs more than once; the first one is used"]


@pytest.mark.parametrize(
    "more",
    [
        multipart({f"field{number}": "" for number in range(101)}),
        multipart({}, {f"file{number}": ("a", "b", b"") for number in range(1_001)}),
        multipart({"x" * 101: ""}),
    ],
)
def test_an_email_with_too_many_parts_is_read_as_far_as_possible(more: bytes) -> None:
    end = f"--{BOUNDARY}--\r\n".encode()
    [incoming] = parse(SENDGRID_INBOUND, multipart(MAIL).removesuffix(end) + more, MULTIPART).messages

    assert incoming.message.body == MAIL["html"]
    assert incoming.message.warnings or b"x" * 101 in more


@pytest.mark.parametrize(("mails", "count"), [(parsed_mails, 38), (raw_mails, 560)], ids=["parsed", "raw"])
def test_no_email_of_the_corpus_is_lost(
    mails: Callable[[], Iterator[tuple[Fields, str]]], count: int
) -> None:
    messages = []
    for fields, text in mails():
        message = parse_email(fields).message
        assert message.body.strip() == text
        assert (message.from_, message.to, message.subject) == ("ann@example.com", "us@example.org", "Hello")
        assert message.warnings == []
        messages.append(message)

    assert len({message.id for message in messages}) == len(messages) == count


def test_a_raw_email_has_its_headers_in_it() -> None:
    raw = mixed(
        b"Content-Type: text/html\r\n\r\n<p>a</p>",
        b'Content-Type: a/b; name="=?utf-8?B?5LitLnBkZg==?="\r\n\r\nx',
    )
    head = f"Date: {format_datetime(NOW - HOUR)}\r\nCc: x@y.z\r\n".encode()
    incoming = parse_email(without(post_of(head + raw), "subject", "from", "envelope", "to"))
    message = incoming.message

    assert (message.subject, message.from_, message.to) == ("Hello", "ann@example.com", "x@y.z")
    assert (message.email_id, message.timestamp, message.body) == ("<1@example.com>", NOW - HOUR, "<p>a</p>")
    assert incoming.raw["files"] == [{"field": "attachment1", "name": "中.pdf", "type": "a/b", "size": 1}]
    assert incoming.raw["fields"]["email"].startswith("From: Ann <ann@example.com>")


def test_the_bytes_of_what_could_not_be_decoded_are_kept() -> None:
    damaged = "Grüße ".encode() + b"\xff"
    warning = "Some characters of {} could not be decoded; its bytes are kept in the raw payload"
    parsed = parse_email({**without(MAIL, "html"), "text": damaged})
    raw = parse_email(post_of(plain(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + damaged)))

    assert parsed.message.body == raw.message.body == "Grüße \ufffd"
    assert parsed.message.warnings == [warning.format("text")]
    assert raw.message.warnings == [warning.format("text/plain")]
    assert base64.b64decode(parsed.raw["bytes"]["text"]) == damaged
    assert base64.b64decode(raw.raw["bytes"]["text/plain"]) == damaged


def test_undecodable_bytes_fit_into_the_stream() -> None:
    incoming = parse_email({**MAIL, "text": b"\x81\xff" * 1_000_000, "html": b"\x81\xff" * 1_000_000})

    assert incoming.raw["bytes"].keys() == {"text", "html"}
    assert {"bytes.text", "bytes.html"} <= set(incoming.raw["cut"])


@pytest.mark.parametrize(
    ("fields", "end", "warning"),
    [
        ({"html": "<p>" + "<b>x</b>" * 60_000}, ">", "The body was cut to 26"),
        (
            {"html": '<p>Hello</p><img src="data:' + "x" * 600_000},
            "<p>Hello</p>",
            "The body was cut to 12 characters",
        ),
        ({"html": "x" * 600_000, "text": "y" * 600_000}, "x", "The body was cut to 262,144 characters"),
        ({"html": "x" * 600_000, "text": "short"}, "short", "The HTML is too long; the body is the plain"),
    ],
)
def test_a_long_body_is_cut_between_tags_and_says_so(fields: dict[str, str], end: str, warning: str) -> None:
    message = parse_email({**without(MAIL, "text"), **fields}).message

    assert message.body.endswith(end)
    assert [each[: len(warning)] for each in message.warnings] == [warning]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("=?UTF-8?B?5Lit5paHLnBkZg==?=", "中文.pdf"),
        ("=?iso-8859-1?q?caf=E9=2Fmenu.pdf?=", "menu.pdf"),
        ("a.pdf", "a.pdf"),
    ],
)
def test_names_of_files_may_be_encoded_words(written: str, name: str) -> None:
    info = {"attachment-info": json.dumps({"attachment1": {"filename": written}})}
    for files in ({"attachment1": (written, "a/b", b"")}, {"attachment1": ("", "a/b", b"")}):
        [file] = parse_email({**MAIL, **info}, files).raw["files"]
        assert file["name"] == name


def test_not_all_of_many_files_are_listed() -> None:
    files = {f"attachment{number}": ("a", "a/b", b"") for number in range(101)}
    incoming = parse_email(MAIL, files)

    assert len(incoming.raw["files"]) == 100
    assert incoming.message.warnings == ["Only 100 of 101 attachments are listed"]


@fuzzed
@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_any_raw_email_is_a_message(raw: bytes) -> None:
    fields = post_of(mixed(raw))
    assert parse_email(fields).message.from_ == "ann@example.com"
    assert parse_email({**fields, "email": raw + b"x"}).message.from_ == "ann@example.com"


@fuzzed
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_sender_subject_or_recipient_is_a_reason_to_refuse(
    sender: str, subject: str, recipient: str
) -> None:
    envelope = json.dumps({"to": [recipient, "us@example.org"], "from": sender})
    posted = {"from": sender, "subject": subject}
    fields = {name: value.encode(errors="replace") for name, value in posted.items()}

    assert parse_emails({**MAIL, **fields, "envelope": envelope})[-1].message.to == "us@example.org"


WHOLE = multipart(MAIL)
PART = f"--{BOUNDARY}\r\n".encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", MULTIPART),
        (b"garbage", MULTIPART),
        (WHOLE[:-10], MULTIPART),
        (WHOLE[: len(WHOLE) // 2], MULTIPART),
        (WHOLE, {}),
        (WHOLE, {"content-type": "multipart/form-data"}),
        (WHOLE, {"content-type": "multipart/form-data; boundary="}),
        (WHOLE, {"content-type": "multipart/form-data; boundary=other"}),
        (WHOLE, {"content-type": "multipart/form-data; boundary=" + "x" * 300}),
        (PART + b"\r\nvalue\r\n" + WHOLE, MULTIPART),
    ],
)
def test_a_malformed_form_is_unreadable(body: bytes, content_type: dict[str, str]) -> None:
    with pytest.raises(UnreadableWebhookError):
        parse(SENDGRID_INBOUND, body, content_type)


@fuzzed
@given(changed(MAIL), st.text(max_size=20), st.binary(max_size=50), st.text(max_size=20))
def test_any_email_is_tolerated(fields: dict[str, str], charset: str, text: bytes, name: str) -> None:
    charsets = json.dumps({"text": charset, "html": charset, "from": charset})
    escaped = {name.encode().hex(): value for name, value in fields.items() if name not in MAIL}
    known = {name: value for name, value in fields.items() if name in MAIL}
    file = (name.encode(errors="replace").hex(), "a/b", text)
    body = multipart({**known, **escaped, "charsets": charsets, "text": text}, {"file": file})
    require_tolerated(SENDGRID_INBOUND, body, MULTIPART)


@fuzzed
@given(st.integers(0, len(WHOLE)), st.binary(max_size=8), st.integers(0, 20))
def test_any_damaged_email_is_tolerated(position: int, added: bytes, removed: int) -> None:
    damaged = WHOLE[:position] + added + WHOLE[position + removed :]
    require_tolerated(SENDGRID_INBOUND, damaged, MULTIPART)


@fuzzed
@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\x00"), max_size=60))
def test_any_content_type_is_tolerated(parameters: str) -> None:
    content_type = f"multipart/form-data; boundary={parameters}"
    require_tolerated(SENDGRID_INBOUND, WHOLE, {"content-type": content_type})


# --- Events -------------------------------------------------------------------------------------------


def parse_events(*given_events: object) -> WebhookContent:
    return parse(SENDGRID_EVENTS, events(*given_events), JSON)


def parse_receipt(**changes: object) -> IncomingReceipt:
    [receipt] = parse_events({**DELIVERED, **changes}).receipts
    return receipt


def test_a_delivered_email() -> None:
    receipt = parse_receipt()

    assert (receipt.channel, receipt.provider, receipt.provider_message_id) == (
        Channel.EMAIL,
        "sendgrid",
        "X-1",
    )
    assert str(receipt.message_id) == DELIVERED["message_id"]
    assert (receipt.status, receipt.error_code, receipt.error_detail) == (Status.DELIVERED, None, None)
    assert receipt.occurred_at == datetime(2024, 11, 1, 14, tzinfo=UTC)
    assert receipt.raw == DELIVERED


@pytest.mark.parametrize(
    ("event", "code", "detail"),
    [
        (
            {"event": "bounce", "status": "5.1.1", "reason": "550 no\r\n such user"},
            "5.1.1",
            "550 no such user",
        ),
        ({"event": "bounce", "type": "blocked"}, "bounce", None),
        ({"event": "dropped", "reason": "Bounced Address"}, "dropped", "Bounced Address"),
        ({"event": "dropped", "status": ["?"], "reason": {"a": 1}}, "['?']", "{'a': 1}"),
        ({"event": "bounce", "status": "x" * 99, "reason": "\x00y" * 900}, "x" * 64, "\ufffdy" * 250),
    ],
)
def test_an_undelivered_email_has_a_reason(event: dict[str, Any], code: str, detail: str | None) -> None:
    receipt = parse_receipt(**event)

    assert (receipt.status, receipt.error_code, receipt.error_detail) == (Status.UNDELIVERED, code, detail)


@pytest.mark.parametrize(
    "kind",
    ["processed", "deferred", "open", "click", "spamreport", "unsubscribe", "group_unsubscribe",
     "group_resubscribe", "something new"],
)  # fmt: skip
def test_other_events_are_not_receipts(kind: str) -> None:
    assert parse_events({**DELIVERED, "event": kind}, {"event": kind}).receipts == []


@pytest.mark.parametrize(
    ("event", "state", "source"),
    [
        ({"event": "bounce", "type": "bounce"}, "opted_out", "bounce"),
        ({"event": "bounce"}, "opted_out", "bounce"),
        ({"event": "bounce", "sg_message_id": None, "message_id": None}, "opted_out", "bounce"),
        ({"event": "dropped", "reason": "Bounced Address"}, "opted_out", "bounce"),
        ({"event": "dropped", "reason": "Unsubscribed Address"}, "opted_out", "unsubscribe"),
        ({"event": "dropped", "reason": "Spam Reporting Address"}, "opted_out", "spam_report"),
        ({"event": "spamreport"}, "opted_out", "spam_report"),
        ({"event": "unsubscribe"}, "opted_out", "unsubscribe"),
        ({"event": "group_unsubscribe"}, "opted_out", "unsubscribe"),
        ({"event": "Bounce"}, "opted_out", "bounce"),
        ({"event": "spamreport", "asm_group_id": 7}, "opted_out", "spam_report"),
        ({"event": "unsubscribe", "asm_group_id": 7}, "opted_out", "unsubscribe"),
        ({"event": "dropped", "reason": "Bounced Address", "asm_group_id": 7}, "opted_out", "bounce"),
    ],
)
def test_an_event_may_opt_out_from_all_our_addresses(event: dict[str, Any], state: str, source: str) -> None:
    [change] = parse_events({**DELIVERED, "email": "Ann@Example.com", **event}).suppressions

    assert (change.channel, change.ours, change.theirs) == (Channel.EMAIL, None, "ann@example.com")
    assert (change.state, change.source) == (state, source)
    assert change.occurred_at == datetime(2024, 11, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "bounce", "type": "blocked"},
        {"event": "dropped", "reason": "Invalid"},
        {"event": "delivered"},
        {"event": "unsubscribe", "email": "nobody"},
        {"event": "unsubscribe", "email": None},
    ],
)
def test_other_events_do_not_opt_out(event: dict[str, Any]) -> None:
    assert parse_events({**DELIVERED, **event}).suppressions == []


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ({"event": "group_unsubscribe", "asm_group_id": 7}, "opted_out"),
        ({"event": "group_resubscribe", "asm_group_id": "7"}, "opted_in"),
        ({"event": "dropped", "reason": "Unsubscribed Address", "asm_group_id": 7}, "opted_out"),
    ],
)
def test_an_event_about_a_group_concerns_no_other_emails(event: dict[str, Any], state: str) -> None:
    [change] = parse_events({**DELIVERED, **event}).suppressions

    assert (change.ours, change.state) == ("sendgrid:7", state)


@pytest.mark.parametrize("group", [None, "", 0, -7, 7.5, "seven", [7], "9" * 5_000])
def test_a_resubscription_to_no_group_lifts_nothing(group: object) -> None:
    content = parse_events({**DELIVERED, "event": "group_resubscribe", "asm_group_id": group})

    assert content.suppressions == []
    assert [[fault.field for fault in faults] for faults in content.invalid] == [["asm_group_id"]]


@pytest.mark.parametrize("time", [None, "now", True, 10**30, -(10**30), float("1e308"), [], "", "nan"])
def test_an_event_without_a_valid_time_counts_from_its_arrival(time: object) -> None:
    content = parse_events({**DELIVERED, "event": "bounce", "timestamp": time})

    assert [receipt.occurred_at for receipt in content.receipts] == [NOW]
    assert [change.occurred_at for change in content.suppressions] == [NOW]


@pytest.mark.parametrize("time", [1_730_469_600, "1730469600", 1_730_469_600.0, 1_730_469_600_000])
def test_the_time_of_an_event(time: object) -> None:
    assert parse_receipt(timestamp=time).occurred_at == datetime(2024, 11, 1, 14, tzinfo=UTC)


def test_a_text_that_is_cut_within_a_character_is_kept() -> None:
    content = parse_events({**DELIVERED, "event": "bounce", "reason": "no \ud83d", "\ud800": 1})

    assert [receipt.error_detail for receipt in content.receipts] == ["no \ufffd"]
    assert [change.source for change in content.suppressions] == ["bounce"]
    assert content.invalid == []


def test_a_bounce_of_an_unreadable_address_is_still_a_receipt() -> None:
    content = parse_events({**DELIVERED, "event": "bounce", "email": "nobody"})

    assert (len(content.receipts), len(content.suppressions), len(content.invalid)) == (1, 0, 1)


@pytest.mark.parametrize(
    ("given_id", "id_"),
    [
        ("X-1.recvd-5f-1.0", "X-1"),
        ("X-1.f", "X-1"),
        ("X-1", "X-1"),
        ("14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "14c5d75ce93.dfd.64b469"),
        ("a.b.c.recvd-5f-1.0", "a.b.c"),
        ("a.b.geopod-ismtpd-3-0", "a.b"),
        (5, DELIVERED["message_id"]),
    ],
)
def test_the_id_in_the_response_may_have_dots(given_id: object, id_: str) -> None:
    assert parse_receipt(sg_message_id=given_id).provider_message_id == id_


def test_an_opt_out_from_the_future_counts_from_now() -> None:
    future = int(NOW.timestamp()) + 1_000
    [change] = parse_events({**DELIVERED, "event": "spamreport", "timestamp": future}).suppressions

    assert change.occurred_at == NOW


def test_an_event_is_identified_by_its_id() -> None:
    first, again, other = (
        receipt_id(parse_receipt(**changes)) for changes in ({}, {"timestamp": 1}, {"sg_event_id": "event-2"})
    )

    assert first == again != other


@pytest.mark.parametrize("own_id", [None, 5, "", "order-5", ["x"], "\u0000"])
def test_an_id_that_is_not_ours_is_ignored(own_id: object) -> None:
    assert parse_receipt(message_id=own_id).message_id is None


def test_an_event_may_lack_the_id_of_sendgrid() -> None:
    assert str(parse_receipt(sg_message_id=None).message_id) == DELIVERED["message_id"]


BAD_EVENTS: list[object] = [
    None,
    5,
    "delivered",
    [],
    {},
    {**DELIVERED, "event": None},
    {**DELIVERED, "event": ["delivered"]},
    {**DELIVERED, "sg_message_id": "", "message_id": None},
    {**DELIVERED, "extra": "x" * 300_000},
]


@pytest.mark.parametrize("bad", BAD_EVENTS, ids=str)
def test_an_invalid_event_does_not_affect_the_others(bad: object) -> None:
    content = parse_events(DELIVERED, bad, {**DELIVERED, "sg_event_id": "2"})

    assert (len(content.receipts), len(content.suppressions), len(content.invalid)) == (2, 0, 1)
    answer = webhook_at(SENDGRID_EVENTS).respond(content)
    assert answer == AcceptedEvents(receipts=2, suppressions=0, invalid=1)


@pytest.mark.parametrize("body", [b"{}", b"null", b"5", b'"x"'])
def test_events_must_be_in_an_array(body: bytes) -> None:
    with pytest.raises(InvalidWebhookError):
        parse(SENDGRID_EVENTS, body, JSON)


@pytest.mark.parametrize("body", [b"", b"[", b"\xff", b"[" * 100_000])
def test_events_must_be_json(body: bytes) -> None:
    with pytest.raises(UnreadableWebhookError):
        parse(SENDGRID_EVENTS, body, JSON)


def test_a_batch_of_events_may_be_larger_than_other_webhooks() -> None:
    batch = [{**DELIVERED, "sg_event_id": f"event-{number}", "url": "x" * 500} for number in range(900)]

    assert len(events(*batch)) <= webhook_at(SENDGRID_EVENTS).max_size
    assert len(parse_events(*batch).receipts) == 900


@fuzzed
@given(st.lists(some_json | st.dictionaries(st.sampled_from(sorted(DELIVERED)), some_json), max_size=4))
def test_any_events_are_tolerated(batch: list[Any]) -> None:
    require_tolerated(SENDGRID_EVENTS, json.dumps(batch).encode(), JSON)


# --- Signatures ---------------------------------------------------------------------------------------

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
OTHER_KEY = ec.derive_private_key(7, ec.SECP256R1())

verify = SendGridKey.parse(PUBLIC_KEY).verify


def signed(body: bytes, **changes: Any) -> WebhookRequest:  # noqa: ANN401 - arguments of `by_sendgrid`
    return given_headers(body, by_sendgrid(body, JSON, **changes)["headers"])


def given_headers(body: bytes, headers: Mapping[str, str]) -> WebhookRequest:
    return request(body, headers, path=SENDGRID_EVENTS, received_at=datetime.now(UTC))


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_a_genuine_request_also_passes_the_library_of_sendgrid(text: str) -> None:
    genuine = signed(text.encode())

    assert EventWebhook(PUBLIC_KEY).verify_signature(
        text, genuine.headers[SIGNATURE], genuine.headers[TIMESTAMP]
    )
    assert verify(genuine) is None


@given(
    st.binary(min_size=1, max_size=200),
    st.sampled_from(["body", SIGNATURE, TIMESTAMP]),
    st.integers(0),
    flips,
)
def test_a_flipped_byte_is_refused(body: bytes, target: str, position: int, by: int) -> None:
    headers = dict(signed(body).headers)
    if target == "body":
        body = flipped(body, position, by)
    else:
        headers[target] = flipped(headers[target].encode(), position, by).decode("latin-1")

    assert verify(given_headers(body, headers)) is not None


@given(st.integers(0), flips)
def test_a_flipped_byte_of_the_key_makes_an_invalid_or_another_key(position: int, by: int) -> None:
    der = flipped(base64.b64decode(PUBLIC_KEY), position, by)
    try:
        key = SendGridKey.parse(base64.b64encode(der).decode())
    except ValueError:
        return
    assert key.verify(signed(b"[]")) is Refusal.WRONG_SIGNATURE


def test_a_signature_by_another_key_is_refused() -> None:
    assert verify(signed(events(DELIVERED), key=OTHER_KEY)) is Refusal.WRONG_SIGNATURE
    assert verify(signed(b"\xff", key=OTHER_KEY)) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("signature", ["", "*", "a", "é", "AAAA", "MAYCAQECAQE=", "A" * 5_000])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    headers = {**signed(b"[]").headers, SIGNATURE: signature}

    assert verify(given_headers(b"[]", headers)) is Refusal.WRONG_SIGNATURE


def test_a_signature_has_one_spelling() -> None:
    genuine = next(each for each in map(signed, [b"[]"] * 99) if each.headers[SIGNATURE].endswith("="))
    signature = genuine.headers[SIGNATURE]
    bare = signature.rstrip("=")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    other = bare[:-1] + alphabet[alphabet.index(bare[-1]) ^ 1] + signature[len(bare) :]

    assert base64.b64decode(other) == base64.b64decode(signature)
    headers = {**genuine.headers, SIGNATURE: other}
    assert verify(given_headers(b"[]", headers)) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize(("age", "refusal"), [(290, None), (-290, None), (301, "expired"), (-310, "expired")])
def test_a_signature_is_valid_for_five_minutes(age: float, refusal: str | None) -> None:
    assert verify(signed(b"[]", age=age)) == refusal


@pytest.mark.parametrize("timestamp", ["", "soon", "1e9", "-1", "٣", "9" * 5_000, "nan", "1730469600.0"])
def test_a_malformed_timestamp_is_refused(timestamp: str) -> None:
    signature = base64.b64encode(KEY.sign(timestamp.encode() + b"[]", ec.ECDSA(SHA256()))).decode()
    headers = {SIGNATURE: signature, TIMESTAMP: timestamp}

    assert verify(given_headers(b"[]", headers)) is Refusal.EXPIRED


def _spki(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "topsecret",
        "*",
        "ключ",
        "MFkw",
        _spki(ec.derive_private_key(5, ec.SECP384R1()).public_key()),
        _spki(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
    ],
)
def test_the_key_has_to_be_on_its_curve(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        create_verifier(SENDGRID, sendgrid_webhook_public_key=text)
    fault = "SENDGRID_WEBHOOK_PUBLIC_KEY: must be a public key on the curve P-256, in base64"
    assert caught.value.faults == (fault,)


@pytest.mark.usefixtures("no_environment")
def test_the_verifier_needs_the_key() -> None:
    assert create_verifier(SENDGRID) is None
    verifier = create_verifier(SENDGRID, sendgrid_webhook_public_key=PUBLIC_KEY)
    assert verifier
    assert verifier(signed(b"[]")) is None
