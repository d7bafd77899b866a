"""Parses raw e-mails (MIME) in linear time, whatever they contain.

The standard library's parser takes quadratic time for deeply nested parts, and raises for deeper ones.
"""

import re
from binascii import Error, a2b_base64, a2b_uu
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from email.utils import collapse_rfc2231_value
from quopri import decodestring

from shared.providers.charsets import Decoded, beginning_of, decode
from shared.providers.forms import FormFile
from shared.providers.mail_headers import Headers

MAX_TEXT = 2 * 1024 * 1024
"""Bytes of a text that are decoded. Some character sets take seconds for more."""

_MAX_DEPTH = 20
_MAX_PARTS = 1_000
_MAX_COPIED = 96 * 1024 * 1024
"""Bytes. Each level of nested parts is a copy, so large ones cannot be nested as deeply."""

_MAX_HEADERS = 256 * 1024

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_HEADER_LINE = re.compile(rb"[ \t]|[!-9;-~]{1,100}[ \t]*:|>?From ")
_NOT_BASE_64 = re.compile(rb"[^A-Za-z0-9+/]+")
_UU_BEGIN = re.compile(rb"begin [0-7]{3,4} [^\r\n]*\r?\n")

_PLAIN, _HTML = "text/plain", "text/html"


@dataclass(slots=True)
class Mail:
    """A parsed e-mail.

    Attributes:
        texts: the first text of each media type that is not an attachment, decoded, and its bytes.
        files: all other parts.
        warnings: the parts that could not be read.
    """

    headers: Headers
    texts: dict[str, tuple[Decoded, bytes]] = field(default_factory=dict)
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
    def parse(cls, content: bytes) -> "_Part":
        if content.startswith((b"\n", b"\r\n")):
            return cls(Headers(), content.partition(b"\n")[2])
        if not _HEADER_LINE.match(content):
            return cls(Headers(), content)
        end = _END_OF_HEADERS.search(content, 0, _MAX_HEADERS)
        start, stop = end.span() if end else (_end_of_fields(content[:_MAX_HEADERS]),) * 2
        return cls(Headers.parse(decode(content[:start]).text), content[stop:])

    @property
    def type(self) -> Message:
        return self.headers.parameters("content-type")

    def decoded(self) -> bytes:
        """Return the body without its transfer encoding; damaged characters are skipped."""
        encoding = re.split(r"[;\s]", self.headers.first("content-transfer-encoding").lower())[0].strip("\"'")
        match encoding.replace("_", "-"):
            case "base64":
                return _from_base64(self.body)
            case "quoted-printable":
                return decodestring(self.body)
            case "x-uuencode" | "uuencode" | "uue" | "x-uue":
                return _from_uuencode(self.body)
        return self.body


def parse_mime(content: bytes) -> Mail:
    """Parse an e-mail.

    Enclosed e-mails are treated as files, and so are parts that are nested more than 20 levels deep, or more
    than a few levels deep if they are large. Parts after the first 1,000 are dropped.
    """
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    root = _Part.parse(content.removeprefix(BOM_UTF8).lstrip(b"\r\n"))
    mail = Mail(root.headers)
    for number, part in enumerate(_leaves(root, _MAX_DEPTH)):
        if number == _MAX_PARTS:
            mail.warn(f"The e-mail has more than {_MAX_PARTS:,} parts; the others were left out")
            break
        _add(mail, part)
    return mail


def _end_of_fields(content: bytes) -> int:
    """Return where the first line begins that is not part of a header."""
    position = 0
    for line in content.splitlines(keepends=True):
        if not _HEADER_LINE.match(line):
            break
        position += len(line)
    return position


def _leaves(root: _Part, depth: int) -> Iterator[_Part]:
    copied = len(root.body) * (_MAX_DEPTH - depth + 1)
    if root.type.get_content_maintype() != "multipart" or depth == 0 or copied > _MAX_COPIED:
        yield root
        return
    parts = _split(root.body, _boundary_of(root))
    first = next(parts, None)
    if first is None:  # it is a text, in spite of its type
        yield _Part(
            Headers(tuple(item for item in root.headers.fields if item[0] != "content-type")), root.body
        )
        return
    yield from _leaves(first, depth - 1)
    for part in parts:
        yield from _leaves(part, depth - 1)


def _boundary_of(part: _Part) -> bytes:
    with suppress(ValueError, TypeError, LookupError, AttributeError):
        return (part.type.get_boundary() or "").encode()
    return b""


def _split(body: bytes, boundary: bytes) -> Iterator[_Part]:
    """Yield the parts between the lines of a boundary; the last one may lack its end."""
    delimiter = b"--" + boundary
    start, found = None, body.find(delimiter) if boundary else -1
    while found >= 0:
        behind = found + len(delimiter)
        if found == 0 or body[found - 1 : found] == b"\n":
            end = body.find(b"\n", behind)
            line = body[behind : end if end >= 0 else len(body)].strip()
            if line in (b"", b"--"):
                if start is not None:
                    yield _Part.parse(body[start:found].removesuffix(b"\n").removesuffix(b"\r"))
                if line or end < 0:
                    return
                start = behind = end + 1
        found = body.find(delimiter, behind)
    if start is not None:
        yield _Part.parse(body[start:])


def _add(mail: Mail, part: _Part) -> None:
    type_ = part.type.get_content_type()
    if type_.startswith("multipart/"):
        mail.warn("The parts that are nested too deeply were not read")
    content = part.decoded()
    is_attached = part.headers.first("content-disposition")[:20].strip().lower().startswith("attachment")
    if type_ in (_PLAIN, _HTML) and type_ not in mail.texts and not is_attached:
        if content.strip():
            decoded = decode(beginning_of(content, MAX_TEXT), _charset_of(part))
            lines = decoded.text.replace("\r\n", "\n").replace("\r", "\n")
            mail.texts[type_] = replace(decoded, text=lines), content
        return
    name = _name_of(part)
    if type_ in mail.texts and content.strip() and not is_attached and not name:
        mail.warn("The body has only the first of several texts; the others are listed as attachments")
    mail.files.append(FormFile(f"attachment{len(mail.files) + 1}", name, type_, len(content), content))


def _charset_of(part: _Part) -> str:
    with suppress(ValueError, TypeError, LookupError, AttributeError):
        return collapse_rfc2231_value(part.type.get_param("charset") or "")
    return ""


def _name_of(part: _Part) -> str:
    for header, parameter in (("content-disposition", "filename"), ("content-type", "name")):
        with suppress(ValueError, TypeError, LookupError, AttributeError):
            name = part.headers.parameters(header).get_param(parameter, header=header)
            if name:
                return collapse_rfc2231_value(name)
    return ""


def _from_base64(content: bytes) -> bytes:
    characters = _NOT_BASE_64.sub(b"", content.partition(b"=")[0])
    whole = characters[: len(characters) - (len(characters) % 4 == 1)]
    return a2b_base64(whole + b"=" * (-len(whole) % 4))


def _from_uuencode(content: bytes) -> bytes:
    begin = _UU_BEGIN.search(content)
    decoded = []
    for line in content[begin.end() if begin else 0 :].split(b"\n"):
        if line.strip() in (b"end", b"`", b""):
            break
        with suppress(Error):
            decoded.append(a2b_uu(line.rstrip(b"\r")))
    return b"".join(decoded) if begin else content
