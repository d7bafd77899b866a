"""Values of strangers are harmless where they are repeated: in headers, subjects, names and labels."""

import json
import re
import string
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.dependencies import _trace
from shared.addresses import Address
from shared.bus.topology import (
    inbound_message_subject,
    inbound_receipt_subject,
    limit_key,
    pause_key,
    suppression_subject,
)
from shared.channels import Channel, MessageType
from shared.downloads import code_of, file_name
from shared.ids import suppression_key
from shared.media import media_type_of
from shared.message import IncomingMessage
from shared.providers.mail import UnsubscribeLinks, subject_of, threading_of
from shared.providers.sendgrid.inbound import parse_mail
from shared.providers.webhooks import WebhookContent, WebhookRequest
from shared.text import message_id_of
from tests import messages
from tests.webhooks import MAIL, MULTIPART, multipart

NOW = datetime(2024, 11, 1, tzinfo=UTC)
SUBJECT = re.compile(r"[A-Za-z0-9_=-]+(\.[A-Za-z0-9_=-]+)*")

texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.text(
    string.printable + "\x00\x1b\u202e<>@", max_size=60
)
message_ids = texts | st.from_regex(r"<[^@]+@[^@]+>", fullmatch=True)


def parse(file: str = "a", **fields: str) -> WebhookContent:
    body = multipart({**MAIL, **fields}, {"file": (file, "text/plain", b"x")})
    return parse_mail(WebhookRequest(headers=MULTIPART, body=body, received_at=NOW, default_region="US"))


@given(message_ids)
def test_the_headers_of_an_email_that_replies(message_id: str) -> None:
    headers = threading_of(messages.email(in_reply_to=message_id))
    for value in headers.values():
        assert re.fullmatch(r"(<[!-;=?-~]+@[!-;=?-~]+> ?)+", value)
        assert len(value) < 998


@given(message_ids)
def test_the_message_id_of_an_inbound_email(message_id: str) -> None:
    [incoming] = parse(headers=f"Message-ID: {message_id}\n").messages
    assert incoming.message.email_id == message_id_of(incoming.message.email_id)
    assert incoming.message.provider_message_id is not None
    assert len(incoming.message.provider_message_id) < 255
    assert incoming.message.provider_message_id.splitlines() == [incoming.message.provider_message_id]


@given(texts)
def test_the_subject_of_an_email(text: str) -> None:
    [incoming] = parse(subject=text).messages
    subjects = (
        incoming.message.subject or "-",
        subject_of(messages.email(subject=text)),
        subject_of(messages.email(subject=None, body=f"<p>{text}")),
    )
    for subject in subjects:
        assert subject.splitlines() == [subject]
        assert len(subject) <= 998


@given(texts, texts)
def test_the_name_and_the_type_of_an_attachment(text: str, type_: str) -> None:
    url = httpx.URL("https://example.com/")
    for header in (f'attachment; filename="{text}"', f"attachment; filename*=utf-8''{text}", f"a; {text}"):
        name = file_name(header, url, "text/plain")
        assert name.isprintable()
        assert not set(name) & set('/\\<>:"|?*')
        assert 0 < len(name) <= 201
    assert re.fullmatch(r"[!-~]{1,127}/[!-~]{1,127}", media_type_of(type_))


@pytest.mark.parametrize("charset", ["idna", "punycode", "undefined", "unicode_escape", "nonsense", "\0"])
def test_the_character_set_of_an_attachment_name(charset: str) -> None:
    header = f"attachment; filename*={charset}''%ff%0a.exe"
    assert file_name(header, httpx.URL("https://example.com/b.txt"), "text/plain").isprintable()


def test_a_media_type_is_short() -> None:
    assert media_type_of("a/" + "b" * 127) != media_type_of("a/" + "b" * 128) == "application/octet-stream"


def test_the_codes_of_attachments_are_few() -> None:
    assert code_of(404) == "attachment_http_404"
    assert len({code_of(status) for status in range(100, 1_000)}) < 70


@given(texts)
def test_the_names_of_files_in_an_inbound_email(text: str) -> None:
    [incoming] = parse(file=text.translate({ord(char): None for char in '"\r\n'}) or "x").messages
    for file in incoming.raw["files"]:
        assert file["name"].splitlines() in ([], [file["name"]])
        assert not set(file["name"]) & {"/", "\\", "\0", "\x1b"}
        assert len(file["name"]) <= 100


@given(texts, texts)
def test_subjects_and_keys(ours: str, theirs: str) -> None:
    incoming = IncomingMessage.of(
        provider="twilio",
        provider_message_id=theirs,
        from_=Address(theirs, theirs),
        to=Address(ours, ours),
        type=MessageType.SMS,
        body="",
        attachments=[],
        timestamp=NOW,
        created_at=NOW,
        raw=None,
    )
    subjects = (
        inbound_message_subject(Channel.SMS, incoming.message.conversation_key),
        inbound_receipt_subject(Channel.SMS, "twilio"),
        suppression_subject(Channel.SMS, suppression_key(Channel.SMS, ours, theirs)),
        limit_key(f"sender.{ours or 'x'}"),
        pause_key("twilio", theirs),
    )
    for subject in subjects:
        assert SUBJECT.fullmatch(subject)


@given(texts, texts)
def test_the_unsubscribe_link(ours: str, theirs: str) -> None:
    message = messages.email(from_=f"{ours}@example.com", to=f"{theirs}@example.org")
    for value in UnsubscribeLinks("https://example.com", "secret").headers_of(message).values():
        assert re.fullmatch(r"[!-~]+", value)


@given(texts)
async def test_the_trace_of_a_request(text: str) -> None:
    request: Any = SimpleNamespace(headers={"traceparent": text, "tracestate": text})
    assert await _trace(request) == {}


@given(texts)
def test_a_header_of_an_inbound_email_is_only_data(text: str) -> None:
    """The raw form is kept as JSON, which has no control characters."""
    [incoming] = parse(headers=text).messages
    stored = json.dumps(incoming.model_dump(mode="json"))
    assert stored.isprintable()
