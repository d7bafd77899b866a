"""Raw e-mails, whole and damaged."""

import tracemalloc
from base64 import b64encode
from binascii import b2a_uu

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.providers.mime import Mail, parse_mime

NESTED_DEEPLY = "The parts that are nested too deeply were not read"


def text_of(mail: Mail, type_: str = "text/plain") -> str:
    return mail.texts[type_][0].text if type_ in mail.texts else ""


def multipart(*parts: bytes, boundary: bytes = b"B", type_: bytes = b"mixed") -> bytes:
    lines = [b'Content-Type: multipart/%s; boundary="%s"\r\n' % (type_, boundary)]
    lines += [b"--%s\r\n%s" % (boundary, part) for part in parts]
    return b"\r\n".join([*lines, b"--%s--" % boundary, b""])


def part(type_: str, content: bytes, *headers: str) -> bytes:
    return "\r\n".join((f"Content-Type: {type_}", *headers, "", "")).encode() + content


PLAIN = part("text/plain", b"The text.")
HTML = part("text/html", b"<p>The text.</p>")


def test_a_plain_email() -> None:
    mail = parse_mime(b"From: ann@example.com\r\nSubject: s\r\n\r\nThe text.\r\nMore.\r")

    assert mail.headers.first("from") == "ann@example.com"
    assert text_of(mail) == "The text.\nMore.\n"
    assert (mail.files, mail.warnings) == ([], [])


def test_the_versions_and_the_attachments_of_an_email() -> None:
    pdf = part(
        'application/pdf; name="a.pdf"',
        b64encode(b"%PDF" * 100),
        "Content-Disposition: attachment; filename*=utf-8''%E4%B8%AD.pdf",
        "Content-Transfer-Encoding: base64",
    )
    log = part("text/plain", b"log", 'Content-Disposition: attachment; filename="b.txt"')
    enclosed = part("message/rfc822", b"Subject: x\r\n\r\nno")
    alternative = multipart(PLAIN, HTML, boundary=b"BB", type_=b"alternative")
    mail = parse_mime(multipart(log, alternative, pdf, enclosed))

    assert (text_of(mail), text_of(mail, "text/html")) == ("The text.", "<p>The text.</p>")
    assert [(file.name, file.type, file.size) for file in mail.files] == [
        ("b.txt", "text/plain", 3),
        ("中.pdf", "application/pdf", 400),
        ("", "message/rfc822", 16),
    ]


@pytest.mark.parametrize(
    ("parameter", "name", "is_lossy"),
    [
        ("filename*=iso-8859-1'en'%E9t%E9.txt", "été.txt", False),
        ("filename*0*=utf-8''%C3%A9; filename*1=t.txt", "ét.txt", False),
        ("filename*=utf-8''中.txt", "中.txt", False),
        ("filename*=utf-8''中%C3%A9.txt", "中Ã©.txt", True),
        ("filename*=x-unknown''%C3%A9.txt", "é.txt", False),
        ("filename=e.txt; filename*=utf-8''%C3%A9.txt", "é.txt", False),
        ("filename*=x-unknown''%E9.txt", "é.txt", True),
        ("filename*=utf-8''%C3%A9%E9.txt", "é\ufffd.txt", True),
        ('filename="a \\"b\\".txt"', 'a "b".txt', False),
        ("filename=<a>.txt", "<a>.txt", False),
    ],
)
def test_the_name_of_an_attachment(parameter: str, name: str, *, is_lossy: bool) -> None:
    mail = parse_mime(multipart(PLAIN, part("a/b", b"x", f"Content-Disposition: attachment; {parameter}")))

    assert [(file.name, file.is_name_lossy) for file in mail.files] == [(name, is_lossy)]
    assert not mail.warnings


def test_the_body_has_only_the_first_of_several_texts() -> None:
    mail = parse_mime(multipart(PLAIN, part("text/plain", b"-- \nA list"), part("text/plain", b"Another")))

    assert (text_of(mail), len(mail.files)) == ("The text.", 2)
    assert mail.warnings == [
        "The body has only the first of several texts; the others are listed as attachments"
    ]


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("7bit", b"caf\xc3\xa9"),
        ("BASE64", b"Y2Fm\r\nw6k="),
        ("base64 ; x", b"Y2 F*mw6k"),
        ("quoted-printable", b"caf=C3=\r\n=A9"),
        ("x-uuencode", b"begin 644 a\r\n%8V%FPZD \r\n`\r\nend"),
        ("unknown", b"caf\xc3\xa9"),
        ("", b"caf\xe9"),
    ],
)
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "x"])
def test_transfer_encodings(encoding: str, content: bytes, charset: str) -> None:
    given_part = part(f"text/plain; charset={charset}", content, f"Content-Transfer-Encoding: {encoding}")

    assert text_of(parse_mime(given_part)) == "café"


@pytest.mark.parametrize(
    "raw",
    [
        multipart(PLAIN),
        multipart(PLAIN).replace(b"\r\n", b"\n"),
        multipart(PLAIN).replace(b"\r\n", b"\r"),
        b"\r\n\r\n" + multipart(PLAIN),
        multipart(PLAIN).removesuffix(b"--B--\r\n"),
        multipart(PLAIN).removesuffix(b"--\r\n"),
        multipart(PLAIN).replace(b"--B\r", b"--B \t\r"),
        multipart(b"", PLAIN),
        multipart(b"\r\n", PLAIN),
        multipart(b"Content-Type: text/plain\r\nThe text."),
        multipart(b"The text."),
        multipart(b"\r\nThe text."),
        multipart(part("text/plain", b"", "Content-Disposition: inline"), PLAIN),
        multipart(part('text/plain; charset="', b"The text.")),
        multipart(part("text", b"The text.")),
        multipart(multipart(PLAIN, boundary=b"B")),
        multipart(multipart(PLAIN, boundary=b"B1"), boundary=b"B11"),
        part("multipart/mixed", b"The text."),
        part("multipart/mixed; boundary=", b"The text."),
        part("multipart/mixed; boundary=B", b"The text."),
        b"The text.",
        b"\nThe text.",
        b"Subject: s\nThe text.",
        b"From ann@example.com Mon Jan  5\nSubject: s\n \nX: y\n\nThe text.",
        b"\xef\xbb\xbfSubject: s\nX: y\n\nThe text.",
    ],
)  # fmt: skip
def test_the_text_of_a_damaged_email_is_found(raw: bytes) -> None:
    assert text_of(parse_mime(raw)).rstrip() == "The text."


def test_parts_that_are_nested_too_deeply_are_named() -> None:
    for depth, is_read in ((19, True), (21, False), (1_000, False)):
        raw = PLAIN
        for level in range(depth):
            raw = multipart(raw, boundary=b"B%d." % level)
        mail = parse_mime(raw)

        assert (text_of(mail) == "The text.") is is_read
        assert (mail.warnings == [NESTED_DEEPLY]) is not is_read


def test_of_too_many_parts_the_first_ones_are_read() -> None:
    mail = parse_mime(multipart(PLAIN, *[part("a/b", b"x")] * 100_000))

    assert text_of(mail) == "The text."
    assert len(mail.files) == 999
    assert mail.warnings == ["The e-mail has more than 1,000 parts; the others were left out"]


BASE64 = [*((b64encode(each), each) for each in (b"a", b"bc", b"def", b"\xff" * 60)), (b"\r\n", b"")]
BASE64_DAMAGED = [(each, each) for each in (b"*", b"\r\n-- \r\nThe list", b"Z")]
QUOTED = [
    *((b"=41", b"A"), (b"=C3=a9", b"\xc3\xa9"), (b"=\r\n", b""), (b"=\n", b""), (b"= \t\r\n", b"")),
    *((each, each) for each in (b"x", b"=Z", b"==x", b"=4z", b"= x", b"\r\n", b"=\rx\n")),
]
LINES = [(b2a_uu(each), each) for each in (b"a", b"bc", b"def" * 10)]
LINES_DAMAGED = [(each, each) for each in (b"#~~~~\n", b"M123\n", b"begin 644 b\n", b"end\nx\n")]
CONTENTS = {
    "base64": st.lists(st.sampled_from(BASE64 + BASE64_DAMAGED), max_size=6).map(lambda found: (b"", found)),
    "quoted-printable": st.lists(st.sampled_from(QUOTED), max_size=8).map(lambda found: (b"", found)),
    "uuencode": st.lists(st.sampled_from(LINES + LINES_DAMAGED), max_size=4).map(
        lambda found: (b"begin 644 a\n", [*found, (b"end\n", b"")])
    ),
}


@given(st.data())
def test_content_that_is_lost_is_named(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from([*CONTENTS]))
    before, found = data.draw(CONTENTS[encoding])
    content = before + b"".join(written for written, _ in found)
    file = part("a/b", content, f"Content-Transfer-Encoding: {encoding}")
    raw = multipart(PLAIN, file, HTML)
    cut = raw[: len(raw) - data.draw(st.sampled_from([0, 0, 1, 20, len(content)]))]
    mail = parse_mime(cut)
    [content, *_] = [each.content for each in mail.files] or [b""]

    is_all_there = content == b"".join(read for _, read in found)
    assert (is_all_there and text_of(mail, "text/html") == "<p>The text.</p>") or mail.warnings


TOKENS = [b"one", b"two", b"three", b"four"]
STRUCTURE = [
    *(b"--B\r\n", b"--B--\r\n", b"--C\r\n", b"--C--\r\n", b"\r\n", b"not a header\r\n"),
    b"Content-Type: multipart/mixed; boundary=C\r\n\r\n",
    b"Content-Type: text/plain\r\n\r\n",
    b"Content-Type: text/markdown\r\n\r\n",
    b"Content-Type: a/b\r\n\r\n",
]


@given(st.lists(st.sampled_from(STRUCTURE + [token + b"\r\n" for token in TOKENS]), max_size=14))
def test_text_that_is_in_no_part_is_named(lines: list[bytes]) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=B\r\n\r\n" + b"".join(lines)
    mail = parse_mime(raw)
    read = b"\n".join([content for _, content in mail.texts.values()] + [file.content for file in mail.files])

    for token in TOKENS:
        assert read.count(token) >= raw.count(token) or mail.warnings


@pytest.mark.parametrize(
    ("encoding", "content", "read", "is_named"),
    [
        ("base64", b"SGVsbG8=IHdvcmxk", b"Hello world", False),
        ("base64", b"SGVsbG8=\r\nIHdvcmxkIQ==\r\n", b"Hello world!", False),
        ("base64", b"SGVsbG8=\r\n____\r\nThe list", b"Hello", True),
        ("base64", b"SGVsbG8", b"Hello", True),
        ("base64", b"SGVs*bG8=", b"Hello", True),
        ("quoted-printable", b"a=\rb\nc==41", b"a=\rb\nc=A", False),
        ("uuencode", b"begin 644 a\n#86)C\n\n#9&5F\n`\nend\n", b"abcdef", False),
        ("uuencode", b"Hi\nbegin 644 a\n#86)C\n`\nend\n", b"abc", True),
        ("uuencode", b"begin 644 a\n#86)C\n", b"abc", True),
        ("uuencode", b"begin 644 a\n#86)C\n#~~~~\nend\nbegin 644 b\n", b"abc", True),
    ],
)
def test_damaged_transfer_encodings(encoding: str, content: bytes, read: bytes, *, is_named: bool) -> None:
    mail = parse_mime(part("a/b", content, f"Content-Transfer-Encoding: {encoding}"))

    assert [file.content for file in mail.files] == [read]
    assert mail.warnings == [f"A part in {encoding} could not be decoded completely"] * is_named


@pytest.mark.parametrize(
    ("raw", "warning"),
    [
        (multipart(PLAIN).replace(b"--B\r", b"This is a multi-part message in MIME format.\r\n--B\r"), None),
        (multipart(PLAIN).replace(b"--B\r", b"Hi\r\n--B\r"), "The text before the first part was left out"),
        (multipart(PLAIN) + b"\r\n\r\n", None),
        (multipart(PLAIN) + b"\r\nA footer", "The text after the last part was left out"),
        (
            multipart(PLAIN).removesuffix(b"--B--\r\n"),
            "The e-mail has no end, so a part of it may be missing",
        ),
        (b'Content-Type: multipart/mixed; boundary="B"\r\n\r\nHi\r\n--B--\r\nAnn', None),
        (multipart(multipart(PLAIN), HTML), None),
        (b"Subject: s\r\nDear Ann\r\n\r\n", "Some lines of the headers could not be read, and were left out"),
        (b"Subject: s\xff\r\n\r\n", "Some characters of the headers could not be decoded"),
        (part('a/b; name*="x', b""), None),
        (part("a/b; name*=x'y", b""), None),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(raw: bytes, warning: str | None) -> None:
    assert parse_mime(raw).warnings == ([warning] if warning else [])


def test_parts_after_the_end_of_one_with_the_same_boundary_are_read() -> None:
    mail = parse_mime(multipart(multipart(PLAIN), HTML))

    assert (text_of(mail), text_of(mail, "text/html")) == ("The text.", "<p>The text.</p>")


pieces = st.sampled_from(
    [
        *(b"--B", b"--B--", b"--C", b"\r\n", b"\n", b"\r", b" ", b"=", b"\xff", b"\0", b'"', b";"),
        b"Content-Type: ",
        *(b"multipart/mixed; boundary=B", b"multipart/x; boundary*0*=utf-8''C", b"message/rfc822"),
        *(b"text/html; charset=", b"utf-16"),
        b"Content-Disposition: attachment; filename*1*=",
        *(b"Content-Transfer-Encoding: base64", b"x-uuencode", b"begin 644 x"),
    ]
)


@given(st.lists(pieces, max_size=30) | st.lists(st.binary(max_size=8), max_size=8))
def test_any_email_is_tolerated(parts: list[bytes]) -> None:
    for raw in (b"".join(parts), multipart(b"".join(parts))):
        mail = parse_mime(raw)
        for decoded, content in mail.texts.values():
            assert decoded.text.encode() or not content.strip()


@given(st.integers(0), st.integers(1, 255))
def test_a_changed_byte_leaves_one_of_the_texts(position: int, by: int) -> None:
    raw = bytearray(multipart(PLAIN, HTML, type_=b"alternative"))
    start = len("Content-Type: multipart/alternative")
    raw[start + position % (len(raw) - start)] ^= by
    mail = parse_mime(bytes(raw))

    assert any("text" in decoded.text for decoded, _ in mail.texts.values())


def test_large_parts_are_not_copied_at_every_level() -> None:
    content = b"\r\n" + b"x" * (8 * 1024 * 1024)
    for level in range(20):
        content = multipart(content + b"\r\n", boundary=b"B%d" % level)
    tracemalloc.start()
    mail = parse_mime(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 160 * 1024 * 1024
    assert mail.warnings == [NESTED_DEEPLY]
