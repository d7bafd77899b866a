"""SendGrid's Inbound Parse: the e-mails, their authors, recipients and identities."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import Channel, MessageType
from shared.ids import conversation_key
from shared.providers.sendgrid.inbound import AcceptedEmail
from shared.providers.webhooks import UnreadableWebhookError, WebhookContent
from tests.mails import Fields, mixed, parsed_mails, post_of, raw_mails
from tests.unit.providers.parsing import (
    NOW,
    changed,
    fuzzed,
    invalid_fields,
    parse,
    parse_email,
    parse_emails,
    require_tolerated,
    webhook_at,
    without,
)
from tests.webhooks import (
    BOUNDARY,
    DELIVERED,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    multipart,
)


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
        (at(NOW - timedelta(days=9_000)), NOW - timedelta(days=9_000)),
        (at(NOW - HOUR, header="Received"), NOW - HOUR),
        (at(NOW - HOUR, header="Received") + "Date: yesterday\n", NOW - HOUR),
        (at(NOW + HOUR, header="Received") + "Date: yesterday\n", NOW),
        ("Date: Fri, 2 Jan 2026 04:04:05 +0200 (EET)\n", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        ("Date: 1 Jan 26 22:04 EST\n", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("Date: Fri,\n 2 Jan 2026 03:03:60 GMT\n", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("Date: Fri, 2 Jan 99999 03:03:60 +9999999999\n", NOW),
    ],
)
def test_the_timestamp_is_the_time_in_the_headers_if_it_has_come(headers: str, written_at: datetime) -> None:
    message = parse_email({**MAIL, "headers": headers}).message

    assert (message.timestamp, message.created_at) == (written_at, NOW)


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
        assert {*message.warnings} <= {"The e-mail has no end, so a part of it may be missing"}
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
