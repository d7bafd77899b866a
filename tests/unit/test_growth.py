"""No step takes more than linear time on an input that strangers choose.

Most of the work happens in C, where no instructions can be counted. Therefore the CPU time of one thread for
an input is compared with that for one eight times as large. The limit lies far above a linear step, and far
below a quadratic one.
"""

import gc
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import thread_time
from typing import Any

import httpx
import pytest

from shared.bus import lines
from shared.downloads import file_name
from shared.errors import BadMessageError
from shared.events import decode
from shared.keywords import keyword_of
from shared.media import media_type_of
from shared.providers.forms import fit_form, parse_multipart
from shared.providers.mail import text_of
from shared.providers.sendgrid.events import parse_events
from shared.providers.sendgrid.inbound import parse_mail
from shared.providers.twilio.receive import parse_message
from shared.providers.twilio.signature import TwilioSignatures
from shared.providers.webhooks import InvalidWebhookError, UnreadableWebhookError, WebhookRequest
from shared.segments import segments_of
from shared.text import single_line
from shared.validation import parse_json

_SIZE = 16_384
_FACTOR = 8
_LIMIT = 24
_NEGLIGIBLE = 0.03
"""Seconds. A quadratic step takes longer for the larger input."""

_EXPECTED_ERRORS = (BadMessageError, InvalidWebhookError, UnreadableWebhookError, ValueError)


def _grows_linearly(step: Callable[[Any], object], create: Callable[[int], Any]) -> bool:
    small = min(_seconds(step, create(_SIZE)) for _ in range(2))
    larger = create(_SIZE * _FACTOR)
    # Other processes may make any single run slow.
    return any(_seconds(step, larger) <= max(_NEGLIGIBLE, _LIMIT * small) for _ in range(3))


def _seconds(step: Callable[[Any], object], value: object) -> float:
    gc.disable()  # it would also look at the objects of all other tests
    try:
        started = thread_time()
        with suppress(*_EXPECTED_ERRORS):
            step(value)
        return thread_time() - started
    finally:
        gc.enable()


def _repeated(part: str) -> Callable[[int], str]:
    return lambda size: part * (size // len(part))


@pytest.mark.parametrize(
    "part",
    [
        *("<a ", "<a></a ", "<", "<!--", "<!", "<![CDATA[", "<?", '<a "', '<a b="', "<a b='\"' c=\"", "</a "),
        *("<script>", "<style ", "</title", "<a", "<a/", "<p a=b", "<a = ", "<a=", "<br>", "<b><p>", "<div>"),
        *("<a href='http://x'>", "</a>", "&", "&#", "&#x1", "&#99999", "&amp", " ", "\n", "x", "\0"),
    ],
)
@pytest.mark.parametrize("before", ["<p>", "<p><script>", "<p><a ", "<p><a href='", "<p><a href=x>", "<p>&#"])
def test_the_text_of_an_html_body(before: str, part: str) -> None:
    assert _grows_linearly(lambda body: text_of(before + body), _repeated(part))


def test_the_text_of_nested_links() -> None:
    def nested(size: int) -> str:
        return "<a href='http://x'>" * (size // 25) + "</a>" * (size // 25)

    assert _grows_linearly(text_of, nested)


@pytest.mark.parametrize("part", [";", ";a=", '\\"', ";a*1=", '"', ";filename*0=a", "="])
def test_the_name_of_an_attachment(part: str) -> None:
    url = httpx.URL("http://example.com/")
    header = _repeated(part)
    assert _grows_linearly(
        lambda text: file_name(text, url, "text/plain"), lambda size: f'attachment; filename="{header(size)}'
    )
    assert _grows_linearly(lambda text: media_type_of(f"a/{text}"), header)


def _request(body: bytes, content_type: str = "multipart/form-data; boundary=B") -> WebhookRequest:
    return WebhookRequest(
        headers={"content-type": content_type},
        body=body,
        received_at=datetime(2024, 11, 1, tzinfo=UTC),
        default_region="US",
    )


def _mail(**fields: str) -> WebhookRequest:
    envelope = json.dumps({"to": ["ann@example.com"], "from": "bob@example.com"})
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {"envelope": envelope, "from": "bob@example.com", **fields}.items()
    ]
    return _request(f"{''.join(parts)}--B--\r\n".encode())


@pytest.mark.parametrize("field", ["headers", "from", "subject", "html", "envelope", "charsets"])
@pytest.mark.parametrize(
    "part",
    [
        *("message-id: \n", "message-id:\n \n", "references: <a@b>\n ", "from: a,\n", "from: a\n b"),
        *(" ", "<", "<> ", "\r\n--", "\r\n--A", "&", "[", '{"a":', "\0", "=?", "=?a?q?", "=?a?q?=?= "),
        *("a@", "@", "(", "()", '"', '\\"', ",", "a,", ":"),
    ],
)
def test_a_field_of_an_email(field: str, part: str) -> None:
    create = _repeated(part)
    assert _grows_linearly(parse_mail, lambda size: _mail(**{field: create(size)}))


@pytest.mark.parametrize(
    "charset", ["utf-7", "hz", "iso2022_jp", "euc-jp", "utf-16", "punycode", "unicode_escape", "idna", "x"]
)
@pytest.mark.parametrize("part", ["+A", "~{", "\x1b$", "\x1b$B!!", "\\u", "-a", "\x7f", "é", "\xad"])
def test_a_field_in_any_character_set(charset: str, part: str) -> None:
    create, charsets = _repeated(part), json.dumps({"text": charset})
    assert _grows_linearly(parse_mail, lambda size: _mail(text=create(size), charsets=charsets))


@pytest.mark.parametrize(
    "part",
    [
        *(
            "\n",
            "\r",
            "\r\n \r\n",
            "a:b\n",
            "A:",
            "content-type:\n ",
            ";a=",
            ';a*1="',
            '"',
            "=",
            "=\n",
            "M\n",
        ),
        *("--C\n", "--C\n\n", "--C", "--C \n", "--C--\n", "--C\na:b\n\n"),
        "--C\nContent-Type: multipart/mixed; boundary=C\n\n",
    ],
)
@pytest.mark.parametrize(
    "before",
    [
        "",
        "Content-Type: multipart/mixed; boundary=C\n\n",
        "Content-Type: multipart/mixed; boundary=C\n\n--C\n" * 2,
        "Content-Transfer-Encoding: base64\n\n",
        "Content-Transfer-Encoding: quoted-printable\n\n",
        "Content-Transfer-Encoding: x-uuencode\n\nbegin 644 x\n",
        "Content-Type: text/plain",
    ],
)
def test_a_raw_email(before: str, part: str) -> None:
    create = _repeated(part)
    assert _grows_linearly(parse_mail, lambda size: _mail(email=before + create(size)))


def test_a_raw_email_of_nested_parts() -> None:
    def nested(size: int) -> str:
        levels = [f"Content-Type: multipart/mixed; boundary=C{n}\n\n--C{n}\n" for n in range(size // 50)]
        return "".join(levels)

    assert _grows_linearly(parse_mail, lambda size: _mail(email=nested(size)))


def test_the_recipients_of_a_large_email() -> None:
    """Each recipient has a message of its own, but the e-mail is only read once."""
    body = "x" * 4_000_000

    def to(count: int) -> WebhookRequest:
        addresses = [f"{number}@example.com" for number in range(count)]
        return _mail(html=body, envelope=json.dumps({"to": addresses, "from": "bob@example.com"}))

    one, many = (min(_seconds(parse_mail, to(count)) for _ in range(3)) for count in (1, 100))
    assert many < 4 * one + _NEGLIGIBLE


@pytest.mark.parametrize("part", ["A: b\r\n", "\r\n", ';a="b"', '\\"', "--B", "\r\n--"])
@pytest.mark.parametrize("before", ["", "--B\r\n", '--B\r\nContent-Disposition: form-data; name="'])
def test_a_multipart_form(before: str, part: str) -> None:
    create = _repeated(part)
    assert _grows_linearly(
        lambda body: parse_multipart(body, "multipart/form-data; boundary=B"),
        lambda size: f"{before}{create(size)}\r\n\r\nx\r\n--B--\r\n".encode(),
    )


def test_the_longest_fields_of_a_form() -> None:
    assert _grows_linearly(
        lambda fields: fit_form(fields, _SIZE),
        lambda size: {str(number): "\1" * (size // 100) for number in range(100)},
    )


@pytest.mark.parametrize("part", [b"a&", b"&", b"=", b"%", b"a=b&", b"+"])
def test_a_form_that_twilio_may_not_have_signed(part: bytes) -> None:
    verify = TwilioSignatures("token", "https://example.com")

    def request(size: int) -> WebhookRequest:
        return _request(part * (size // len(part)), "application/x-www-form-urlencoded")

    assert _grows_linearly(verify, request)
    assert _grows_linearly(parse_message, request)


@pytest.mark.parametrize("part", ["[", '{"a":', "9", "-", "1e", '"\\u0041', "[],", '"', "0.1", " ", "null,"])
@pytest.mark.parametrize("before", ["", "[", "0.", '{"type":"messaging.'])
def test_json(before: str, part: str) -> None:
    create = _repeated(part)

    def body(size: int) -> bytes:
        return f"{before}{create(size)}".encode()

    assert _grows_linearly(parse_json, body)
    assert _grows_linearly(decode, body)
    assert _grows_linearly(parse_events, lambda size: _request(f"[{create(size)}1]".encode()))


@pytest.mark.parametrize("part", [".v", ".v1", "a", '"type":"messaging.a'])
def test_the_type_of_an_event(part: str) -> None:
    create = _repeated(part)
    assert _grows_linearly(decode, lambda size: f'"type":"messaging.{create(size)}'.encode())


@pytest.mark.parametrize("part", [" ", "a.", "\n", "ŉ", "€", "}\n{", "\ud800"])
def test_a_text(part: str) -> None:
    create = _repeated(part)
    assert _grows_linearly(keyword_of, create)
    assert _grows_linearly(segments_of, create)
    assert _grows_linearly(lambda text: single_line(text, limit=100), create)
    assert _grows_linearly(
        lambda payload: list(lines.split(payload)), lambda size: create(size).encode(errors="replace")
    )
