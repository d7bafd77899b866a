"""Parses raw e-mails (MIME) in linear time, whatever they contain.

The standard library's parser takes quadratic time for deeply nested parts, and raises for deeper ones.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import Any

from shared.providers.charsets import Decoded, beginning_of, decode
from shared.providers.forms import FormFile
from shared.providers.mail_headers import Headers
from shared.providers.transfer_encodings import from_base64, from_quoted_printable, from_uuencode

MAX_TEXT = 2 * 1024 * 1024
"""Bytes of a text that are decoded. Some character sets take seconds for more."""

_MAX_DEPTH = 20
_MAX_PARTS = 1_000
_MAX_COPIED = 96 * 1024 * 1024
"""Bytes. Each level of nested parts is a copy, so large ones cannot be nested as deeply."""

_MAX_HEADERS = 256 * 1024

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_HEADER_LINE = re.compile(rb"[ \t]|[!-9;-~]{1,100}[ \t]*:|>?From ")
_CONTENT = re.compile(rb"\S")
_NOTE = re.compile(rb"(?i)mime|multi-?part")
"""The text before the first part usually explains to old mail programs that the e-mail is in MIME format."""

_PLAIN, _HTML = "text/plain", "text/html"

_LEFT_OUT_BEFORE = "The text before the first part was left out"
_LEFT_OUT_AFTER = "The text after the last part was left out"
_NO_END = "The e-mail has no end, so a part of it may be missing"

Warn = Callable[[str], None]


@dataclass(slots=True)
class Mail:
    """A parsed e-mail.

    Attributes:
        texts: the first plain text and the first HTML that is not an attachment, decoded, and its bytes.
        other_text: the first text of another type, such as Markdown, which replaces a missing plain text.
        files: all other parts.
        warnings: what was left out or could not be read, in words.
    """

    headers: Headers = field(default_factory=Headers)
    texts: dict[str, tuple[Decoded, bytes]] = field(default_factory=dict)
    other_text: tuple[Decoded, bytes] | None = None
    files: list[FormFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


@dataclass(frozen=True, slots=True)
class _Part:
    headers: Headers
    body: bytes

    @classmethod
    def parse(cls, content: bytes, warn: Warn) -> "_Part":
        if content.startswith((b"\n", b"\r\n")):
            return cls(Headers(), content.partition(b"\n")[2])
        if not _HEADER_LINE.match(content):
            return cls(Headers(), content)
        end = _END_OF_HEADERS.search(content, 0, _MAX_HEADERS)
        start, stop = end.span() if end else (_end_of_fields(content[:_MAX_HEADERS]),) * 2
        decoded = decode(content[:start])
        headers = Headers.parse(decoded.text)
        if decoded.is_lossy:
            warn("Some characters of the headers could not be decoded")
        if not headers.is_whole:
            warn("Some lines of the headers could not be read, and were left out")
        return cls(headers, content[stop:])

    @property
    def type(self) -> Message:
        return self.headers.parameters("content-type")

    def decoded(self, warn: Warn) -> bytes:
        """Return the body without its transfer encoding; damaged characters are skipped."""
        encoding = re.split(r"[;\s]", self.headers.first("content-transfer-encoding").lower())[0].strip("\"'")
        match encoding.replace("_", "-"):
            case "base64":
                content, is_whole = from_base64(self.body)
            case "quoted-printable":
                return from_quoted_printable(self.body)
            case "x-uuencode" | "uuencode" | "uue" | "x-uue":
                content, is_whole = from_uuencode(self.body)
            case _:
                return self.body
        if not is_whole:
            warn(f"A part in {encoding} could not be decoded completely")
        return content


def parse_mime(content: bytes) -> Mail:
    """Parse an e-mail.

    Enclosed e-mails are treated as files, and so are parts that are nested more than 20 levels deep, or more
    than a few levels deep if they are large. Parts after the first 1,000 are dropped.
    """
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    mail = Mail()
    root = _Part.parse(content.removeprefix(BOM_UTF8).lstrip(b"\r\n"), mail.warn)
    mail.headers = root.headers
    for number, part in enumerate(_leaves(root, _MAX_DEPTH, mail.warn)):
        if number == _MAX_PARTS:
            mail.warn(f"The e-mail has more than {_MAX_PARTS:,} parts; the others were left out")
            break
        _add(mail, part)
    if mail.other_text and not mail.texts:
        mail.texts[_PLAIN] = mail.other_text
    return mail


def _end_of_fields(content: bytes) -> int:
    """Return where the first line begins that is not part of a header."""
    position = 0
    for line in content.splitlines(keepends=True):
        if not _HEADER_LINE.match(line):
            break
        position += len(line)
    return position


def _leaves(root: _Part, depth: int, warn: Warn) -> Iterator[_Part]:
    copied = len(root.body) * (_MAX_DEPTH - depth + 1)
    if root.type.get_content_maintype() != "multipart" or depth == 0 or copied > _MAX_COPIED:
        yield root
        return
    parts = _split(root.body, _boundary_of(root), warn)
    first = next(parts, None)
    if first is None:  # it is a text, in spite of its type
        fields = tuple(item for item in root.headers.fields if item[0] != "content-type")
        yield _Part(Headers(fields), root.body)
        return
    yield from _leaves(first, depth - 1, warn)
    for part in parts:
        yield from _leaves(part, depth - 1, warn)


def _boundary_of(part: _Part) -> bytes:
    with suppress(ValueError, TypeError, LookupError, AttributeError):
        return (part.type.get_boundary() or "").encode()
    return b""


def _split(body: bytes, boundary: bytes, warn: Warn) -> Iterator[_Part]:
    """Yield the parts between the lines of a boundary; the last one may lack its end.

    Parts after the end are yielded as well, because a nested part may use the boundary of the e-mail.
    """
    delimiter = b"--" + boundary
    start, is_inside, found = None, False, body.find(delimiter) if boundary else -1
    while found >= 0:
        behind = found + len(delimiter)
        if found == 0 or body[found - 1 : found] == b"\n":
            end = body.find(b"\n", behind)
            end = end if end >= 0 else len(body)
            line = body[behind:end].strip()
            if not line or (line == b"--" and start is not None):
                if is_inside:
                    yield _Part.parse(body[start:found].removesuffix(b"\n").removesuffix(b"\r"), warn)
                elif start is not None and _CONTENT.search(body, start, found):
                    warn(_LEFT_OUT_AFTER)
                elif start is None and _CONTENT.search(body, 0, found) and not _NOTE.search(body, 0, found):
                    warn(_LEFT_OUT_BEFORE)
                is_inside = not line
                start = behind = end + 1
        found = body.find(delimiter, behind)
    if is_inside:
        warn(_NO_END)
        yield _Part.parse(body[start:], warn)
    elif start is not None and _CONTENT.search(body, start):
        warn(_LEFT_OUT_AFTER)


def _add(mail: Mail, part: _Part) -> None:
    type_ = part.type.get_content_type()
    if type_.startswith("multipart/"):
        mail.warn("The parts that are nested too deeply were not read")
    content = part.decoded(mail.warn)
    is_attached = part.headers.first("content-disposition")[:20].strip().lower().startswith("attachment")
    if type_ in (_PLAIN, _HTML) and type_ not in mail.texts and not is_attached:
        if content.strip():
            mail.texts[type_] = _text_of(part, content), content
        return
    name = _name_of(part, mail.warn)
    if type_.startswith("text/") and not (mail.other_text or is_attached or name.text) and content.strip():
        mail.other_text = _text_of(part, content), content
    if type_ in mail.texts and content.strip() and not is_attached and not name.text:
        mail.warn("The body has only the first of several texts; the others are listed as attachments")
    field_name = f"attachment{len(mail.files) + 1}"
    mail.files.append(
        FormFile(field_name, name.text, type_, len(content), content, is_name_lossy=name.is_lossy)
    )


def _text_of(part: _Part, content: bytes) -> Decoded:
    decoded = decode(beginning_of(content, MAX_TEXT), part.headers.charset)
    return replace(decoded, text=decoded.text.replace("\r\n", "\n").replace("\r", "\n"))


def _name_of(part: _Part, warn: Warn) -> Decoded:
    for header, parameter in (("content-disposition", "filename"), ("content-type", "name")):
        try:
            parameters: Any = part.headers.parameters(header).get_params([], header=header)
            if values := [value for name, value in parameters if name.lower() == parameter and value]:
                return _decode_parameter(values[-1])  # one that names its character set comes last
        except (ValueError, TypeError, LookupError, AttributeError):
            warn("The name of an attachment could not be read")
    return Decoded("")


def _decode_parameter(value: str | tuple[str | None, str | None, str]) -> Decoded:
    """Decode the value of a parameter, which may be split into parts or name its character set (RFC 2231)."""
    if isinstance(value, str):
        return Decoded(value.strip('"'))  # some mail programs quote it twice
    charset, _, text = value
    try:
        return decode(text.encode("latin-1"), charset)
    except UnicodeEncodeError:
        # Characters are not percent-encoded, although they should be. Bytes that are look like characters.
        return Decoded(text, is_lossy=any("\x80" <= char <= "\xff" for char in text))
