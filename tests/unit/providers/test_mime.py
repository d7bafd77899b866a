"""Raw e-mails, whole and damaged."""

import tracemalloc
from base64 import b64encode

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
