"""Reading forms to the byte: signatures and character sets are about bytes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from pydantic_core import to_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_PARTS = 1_000
_MAX_FIELDS = 100
_MAX_NAME = 100

Form = dict[str, str | list[str]]
"""Fields by name; of one that occurs several times, all its values."""


class MalformedFormError(ValueError):
    """The body is no such form; the message says why."""


@dataclass(frozen=True, slots=True)
class File:
    """A file in a form, of which only the description is kept; `size` in bytes."""

    field: str
    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Multipart:
    fields: list[tuple[str, bytes]] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


def urlencoded(body: bytes) -> list[tuple[bytes, bytes]]:
    """Read `application/x-www-form-urlencoded`: names and values in their order, blank ones included."""
    pairs = (pair.partition(b"=") for pair in body.replace(b"+", b" ").split(b"&") if pair)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def collected(pairs: Iterable[tuple[str, str]]) -> Form:
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in form.items()}


def multipart(body: bytes, content_type: str) -> Multipart:
    """Read `multipart/form-data` (RFC 7578), whose boundary the content type names.

    Raises:
        MalformedFormError: it is none, or has more than 1,000 parts or 100 fields.
    """
    _, options = parse_options_header(content_type)
    reader = _Reader()
    try:
        reader.read(body, options.get(b"boundary", b""))
    except FormParserError as exc:
        raise MalformedFormError("The body is not multipart/form-data") from exc
    if not reader.is_at_end:
        raise MalformedFormError("The form is cut off")
    return reader.form


def fitted(fields: Form, room: int) -> tuple[Form, list[str]]:
    """Cut the longest fields until all together take no more than `room` bytes as JSON.

    Each may have an equal share, and what short ones leave of theirs.

    Returns:
        the fields, and the names of those that were cut.
    """
    kept: Form = {}
    cut = []
    by_size = sorted(fields.items(), key=lambda item: len(to_json(item)))
    for index, (name, value) in enumerate(by_size):
        share = room // (len(by_size) - index)
        whole = len(to_json((name, value))) <= share
        kept[name] = value if whole else cut_to("".join(value), share - len(to_json((name, ""))))
        if not whole:
            cut.append(name)
        room -= len(to_json((name, kept[name])))
    return kept, cut


def cut_to(text: str, room: int) -> str:
    """Take as much of the beginning of a text as fits into `room` bytes of JSON, or somewhat less."""
    text = text[: max(room, 0)]
    while text and (size := len(to_json(text)) - 2) > room:
        text = text[: len(text) * room // size]
    return text


class _Reader:
    """Gathers what the parser comes across."""

    def __init__(self) -> None:
        self.form = Multipart()
        self.is_at_end = False
        self._part = _Part()

    def read(self, body: bytes, boundary: bytes) -> None:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )
        parser.write(body)
        parser.finalize()

    def _begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header.lower()] = part.value
        part.header = part.value = b""

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get(b"content-disposition"))
        if b"name" not in options:
            raise MalformedFormError("A part of the form has no name")
        part.name = _text(options[b"name"])
        if b"filename" in options:
            part.file_name = _text(options[b"filename"])
        if len(part.name) > _MAX_NAME:
            raise MalformedFormError("The name of a field is too long")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part.size += end - start
        if self._part.file_name is None:
            self._part.data += data[start:end]

    def _end(self) -> None:
        part = self._part
        if part.file_name is None:
            self.form.fields.append((part.name, bytes(part.data)))
        else:
            type_ = _text(part.headers.get(b"content-type", b""))
            self.form.files.append(File(part.name, part.file_name, type_, part.size))
        if len(self.form.fields) > _MAX_FIELDS or len(self.form.files) > _MAX_PARTS:
            raise MalformedFormError("The form has too many parts")

    def _finish(self) -> None:
        self.is_at_end = True


class _Part:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.header = b""
        self.value = b""
        self.name = ""
        self.file_name: str | None = None
        self.data = bytearray()
        self.size = 0


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
