"""Parses forms without decoding them, since signatures and character sets apply to bytes."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from urllib.parse import unquote_to_bytes

from pydantic_core import to_json
from python_multipart import multipart as parser
from python_multipart.exceptions import FormParserError

from shared.providers.charsets import decode

# Bytes of JSON, out of the 1 MiB that a NATS message can hold.
ROOM_FOR_BODY = 256 * 1024
ROOM_FOR_FIELDS = 384 * 1024

_MAX_FILES = 1_000
_MAX_FIELDS = 100
_MAX_NAME = 100

Form = dict[str, str | list[str]]
"""Fields by name; the value of a field that occurs several times is a list."""


class MalformedFormError(ValueError):
    """The body is not such a form; the message explains why."""


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file in a form.

    Attributes:
        size: in bytes.
        is_name_lossy: whether characters of the name could not be decoded.
    """

    field: str
    name: str
    type: str
    size: int
    content: bytes = dataclasses.field(default=b"", repr=False)
    is_name_lossy: bool = False

    def describe(self) -> dict[str, str | int]:
        return {"field": self.field, "name": self.name, "type": self.type, "size": self.size}


@dataclass(slots=True)
class MultipartForm:
    """A form; `ignored` is the number of parts beyond the first 100 fields and 1,000 files."""

    fields: list[tuple[str, bytes]] = field(default_factory=list)
    files: list[FormFile] = field(default_factory=list)
    ignored: int = 0
    is_complete: bool = False

    def add_field(self, part: parser.Field) -> None:
        if len(self.fields) < _MAX_FIELDS:
            self.fields.append((_name(part.field_name), part.value or b""))
        else:
            self.ignored += 1

    def add_file(self, part: parser.File) -> None:
        if len(self.files) < _MAX_FILES:
            name = decode(part.file_name or b"")
            content = part.file_object.getvalue() if isinstance(part.file_object, BytesIO) else b""
            self.files.append(
                FormFile(
                    _name(part.field_name),
                    name.text,
                    part.content_type or "",
                    part.size,
                    content,
                    is_name_lossy=name.is_lossy,
                )
            )
        else:
            self.ignored += 1
        part.close()

    def complete(self) -> None:
        self.is_complete = True


def parse_urlencoded(body: bytes) -> list[tuple[bytes, bytes]]:
    """Parse `application/x-www-form-urlencoded`: names and values in their order, including blank ones."""
    pairs = (pair.partition(b"=") for pair in body.replace(b"+", b" ").split(b"&") if pair)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def parse_multipart(body: bytes, content_type: str) -> MultipartForm:
    """Parse `multipart/form-data` (RFC 7578), whose boundary the content type names.

    Raises:
        MalformedFormError: the body is not such a form.
    """
    media_type, options = parser.parse_options_header(content_type)
    form = MultipartForm()
    try:
        reader = parser.FormParser(
            media_type.decode(),
            form.add_field,
            form.add_file,
            form.complete,
            boundary=options.get(b"boundary", b""),
            config={"MAX_MEMORY_FILE_SIZE": len(body)},
        )
        reader.write(body)
        reader.finalize()
    except FormParserError as exc:
        raise MalformedFormError("The body is not multipart/form-data") from exc
    if not form.is_complete:
        raise MalformedFormError("The form is cut off")
    return form


def collect(pairs: Iterable[tuple[str, str]]) -> Form:
    """Return the fields by name."""
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in form.items()}


def fit_form(fields: Form, room: int) -> tuple[Form, list[str]]:
    """Cut the longest fields until all of them together take at most `room` bytes as JSON.

    Each field has an equal share of the room, plus what shorter fields leave of theirs.

    Returns:
        The fields, and the names of those that were cut.
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
    """Return the beginning of a text that fits into `room` bytes of JSON, or slightly less."""
    text = text[: max(room, 0)]
    while text and (size := len(to_json(text)) - 2) > room:
        text = text[: len(text) * room // size]
    return text


def _name(value: bytes | None) -> str:
    return (value or b"")[:_MAX_NAME].decode(errors="replace")
