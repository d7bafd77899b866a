"""SendGrid's Inbound Parse: bodies and files, and the warnings about what could not be read or kept."""

import base64
import codecs
import json

import pytest

from tests.mails import plain, post_of
from tests.unit.providers.parsing import parse, parse_email, webhook_at, without
from tests.webhooks import BOUNDARY, MAIL, MULTIPART, SENDGRID_INBOUND, multipart


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
    ("fields", "warning"),
    [
        ({"headers": "Message-ID: <1@b.c>\nnot a header\n"}, "Some lines of the headers could not be read"),
        ({"headers": f"X: {'x' * 100_000}\n"}, "Some lines of the headers could not be read"),
        ({"headers": "X: 1\n" * 500_000}, "The field headers was cut to 2,097,152 bytes"),
        ({"subject": "x" * 999}, "The subject was cut to 998 characters"),
        ({"subject": "=?utf-8?q?a=FF?="}, "Some characters of the subject could not be decoded"),
        ({"subject": "=?utf-8?B?SGVs*bG8=?="}, "Some characters of the subject could not be decoded"),
        ({"subject": "a\x00b"}, "Some characters of the subject could not be stored and were replaced"),
        ({"html": "<p>a\x00b</p>"}, "Some characters of the body could not be stored and were replaced"),
        ({"x": "1"}, ""),
    ],
)
def test_what_is_lost_of_a_parsed_email_is_named(fields: dict[str, str], warning: str) -> None:
    warnings = parse_email({**MAIL, **fields}).message.warnings

    assert [each[: len(warning)] for each in warnings] == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("name", "kept", "is_reported"),
    [
        ("a  b.pdf", "a b.pdf", False),
        ("a\x01.pdf", "a\ufffd.pdf", True),
        ("C:\\a.pdf", "a.pdf", True),
        ("a" * 999, "a" * 100, True),
    ],
)
def test_a_shortened_or_altered_name_of_an_attachment_is_reported(
    name: str, kept: str, *, is_reported: bool
) -> None:
    info = json.dumps({"attachment1": {"filename": name}})
    message = parse_email({**MAIL, "attachment-info": info, "attachment1": b"%PDF"}).message

    assert [file.filename for file in message.files] == [kept]
    expected = "The name of an attachment was shortened, or some of its characters were replaced"
    assert message.warnings == [expected] * is_reported


def test_an_undecodable_name_of_a_posted_file_is_reported() -> None:
    posted = multipart(MAIL, {"attachment1": ("?.pdf", "application/pdf", b"%PDF")})
    [incoming] = parse(SENDGRID_INBOUND, posted.replace(b"?.pdf", b"\xc3\xa9\xff.pdf"), MULTIPART).messages

    assert [file.filename for file in incoming.message.files] == ["é\ufffd.pdf"]
    assert incoming.message.warnings == ["Some characters in the name of an attachment could not be decoded"]


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("\x00" + "x" * 600_000, ["Some characters of the body could not be stored", "The body was cut to"]),
        ("x" * 600_000 + "\x00", ["The body was cut to"]),
    ],
)
def test_only_what_happened_to_a_body_is_reported(text: str, warnings: list[str]) -> None:
    found = parse_email({**without(MAIL, "html"), "text": text}).message.warnings

    assert len(found) == len(warnings)
    assert all(map(str.startswith, found, warnings))


def test_further_warnings_are_mentioned() -> None:
    repeated = multipart({f"x{n}": "1" for n in range(25)})
    end = f"--{BOUNDARY}--\r\n".encode()
    [incoming] = parse(
        SENDGRID_INBOUND,
        multipart(MAIL).removesuffix(end) + repeated.removesuffix(end) + repeated,
        MULTIPART,
    ).messages

    assert len(incoming.message.warnings) == 21
    assert incoming.message.warnings[-1] == "There are more warnings, which are not listed"


MARKDOWN = b"# Caf\xe9"


def test_a_text_of_another_type_is_the_body_if_there_is_no_other() -> None:
    raw = parse_email(post_of(b"Content-Type: text/markdown; charset=iso-8859-1\r\n\r\n" + MARKDOWN))
    file = ("", "text/markdown; charset=iso-8859-1", MARKDOWN)
    parsed = parse_email(without(MAIL, "html", "text"), {"attachment1": file})
    attached = parse_email(without(MAIL, "html", "text"), {"attachment1": ("a.md", *file[1:])})

    assert [each.message.body for each in (raw, parsed, attached)] == ["# Café", "# Café", ""]
    assert [len(each.message.files) for each in (raw, parsed, attached)] == [1, 1, 1]
    assert not raw.message.warnings + parsed.message.warnings


def test_a_file_without_a_name_is_an_attachment_too() -> None:
    info = json.dumps({"attachment1": {"type": "application/pdf"}})
    incoming = parse_email({**MAIL, "attachment-info": info, "attachment1": b"%PDF"})

    assert [(file.content_type, file.size) for file in incoming.message.files] == [("application/pdf", 4)]


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
