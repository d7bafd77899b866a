"""Reads the headers of e-mails as they come, which follow RFC 5322 only roughly."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value

from shared.providers.charsets import Decoded, decode
from shared.providers.transfer_encodings import from_base64, from_quoted_printable
from shared.text import message_id_of, single_line

_FIELD = re.compile(r"(?P<name>[!-9;-~]{1,100})[ \t]*:(?P<value>.*)", flags=re.DOTALL)
_ENVELOPE = re.compile(">?From ")
"""The beginning of the line that the mbox format has before the headers."""

_MAX_VALUE = 64 * 1024
_MAX_PARAMETERS = 2_000
_MAX_NAME = 320

_WORD = re.compile(
    r"=\?(?P<charset>[^?*\s]{1,40})(?:\*[^?\s]{0,40})?\?(?P<encoding>[BbQq])\?(?P<text>[^?]*)\?="
)

_ADDRESS = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|[^\s"@])+@[^\s@]+""")
_ESCAPED = re.compile(r"\\(.)")
_BRACKETS = re.compile(r"<([^<>]*)>")
_TOKEN = re.compile(
    r"""(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<escaped>\\.)|(?P<sign>[()<>,;:\[\]])""", flags=re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers of an e-mail, or of a part of it.

    Attributes:
        fields: lower-case names and values, in their order.
        is_whole: whether all lines were headers, and none was too long.
    """

    fields: tuple[tuple[str, str], ...] = ()
    is_whole: bool = True

    @classmethod
    def parse(cls, text: str) -> "Headers":
        """Parse headers, unfold them, and leave out other lines."""
        fields: list[tuple[str, list[str]]] = []
        is_whole = True
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            if line[:1] in (" ", "\t") and fields:
                fields[-1][1].append(line)
            elif found := _FIELD.fullmatch(line):
                fields.append((found["name"].lower(), [found["value"]]))
            elif line.strip() and not _ENVELOPE.match(line):
                is_whole = False
        values = [(name, "".join(lines).strip()) for name, lines in fields]
        is_whole &= all(len(value) <= _MAX_VALUE for _, value in values)
        return cls(tuple((name, value[:_MAX_VALUE]) for name, value in values), is_whole)

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]

    def first(self, name: str) -> str:
        """Return the first value of a header, or an empty text if there is none."""
        return next((value for field, value in self.fields if field == name), "")

    def parameters(self, name: str) -> Message:
        """Return a header such as Content-Type as the standard library parses its parameters (RFC 2231)."""
        message = Message()
        if value := self.first(name):
            message[name] = value[:_MAX_PARAMETERS]  # they take more than linear time
        return message

    @property
    def charset(self) -> str:
        """The character set that Content-Type names, or an empty text."""
        with suppress(ValueError, TypeError, LookupError, AttributeError):
            return collapse_rfc2231_value(self.parameters("content-type").get_param("charset") or "")
        return ""


def decode_words(text: str) -> Decoded:
    """Decode the encoded words in a header (RFC 2047)."""
    text = text[:_MAX_VALUE]
    pieces: list[Decoded] = []
    end, charset, pending = 0, "", b""
    for found in _WORD.finditer(text):
        content, is_whole = _content_of(found)
        between = text[end : found.start()]
        if not content and not is_whole:
            continue
        # A character may have its bytes in two words, although it should not.
        if not pending or between.strip() or found["charset"].lower() != charset:
            pieces.append(decode(pending, charset))
            pieces.append(Decoded("" if pending and not between.strip() else between))
            pending = b""
        pieces.append(Decoded("", is_lossy=not is_whole))
        end, charset, pending = found.end(), found["charset"].lower(), pending + content
    pieces += decode(pending, charset), Decoded(text[end:])
    return Decoded("".join(piece.text for piece in pieces), any(piece.is_lossy for piece in pieces))


def _content_of(word: re.Match[str]) -> tuple[bytes, bool]:
    """Return the bytes of an encoded word, and whether all of it could be decoded."""
    text = word["text"].encode(errors="replace")
    if word["encoding"] in "Qq":
        return from_quoted_printable(text, is_header=True), True
    return from_base64(text + b"=" * (-len(text) % 4))


def mailboxes(text: str) -> list[str]:
    """Return the addresses in a header such as From, as they were written but without names and comments.

    An entry without an address, such as MAILER-DAEMON, is returned whole.
    """
    text = text[:_MAX_VALUE]
    found = [address for entry in _entries(text) if (address := _address_in(entry))]
    if not any(map(is_address, found)):
        words = (*map(_clean, _BRACKETS.findall(text)), *(word.strip("()<>,;:\"'") for word in text.split()))
        found = [word for word in words if is_address(word)] or found
    return found


def author_of(from_: Iterable[str], others: Iterable[str]) -> str:
    """Return the first author of an e-mail.

    Args:
        from_: the values of From.
        others: the values of other headers to look at if From has no address, such as Sender.
    """
    authors = [mailbox for value in from_ for mailbox in mailboxes(value)]
    senders = (mailbox for value in others for mailbox in mailboxes(value))
    addresses = filter(is_address, (*authors, *senders))
    return next(addresses, next(iter(authors), ""))


def name_of(address: str, from_: Iterable[str]) -> str | None:
    """Return the display name beside an address, if there is one.

    Args:
        address: as `author_of` returns it.
        from_: the values of From, in which encoded words may not be decoded yet.
    """
    for value in from_:
        for text, brackets in _entries(value[:_MAX_VALUE]):
            if brackets is not None and _address_in((text, brackets)) == address:
                name = single_line(decode_words(_unquote(text.strip())).text, limit=_MAX_NAME)
                if name:
                    return name
    return None


def _unquote(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return _ESCAPED.sub(r"\1", text[1:-1]) if is_quoted else text


def is_address(text: str) -> bool:
    """Return whether a text has the form of an address, even of one that does not follow the rules."""
    return _ADDRESS.fullmatch(text) is not None


def _entries(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the text of each entry of a list of mailboxes without comments, and the last text in brackets."""
    words: list[str] = []
    brackets: list[str] | None = None
    depth, is_open, is_literal, end = 0, False, False, 0

    def write(piece: str) -> None:
        if depth == 0:
            (brackets if is_open and brackets is not None else words).append(piece)

    for token in _TOKEN.finditer(text):
        write(text[end : token.start()])
        end = token.end()
        match token["sign"]:
            case "(":
                depth += 1
            case ")" if depth:
                depth -= 1
            case "<" if depth == 0:
                brackets, is_open = [], True
            case ">" if depth == 0:
                is_open = False
            case "," | ";" if depth == 0 and not is_open and not is_literal:
                yield "".join(words), None if brackets is None else "".join(brackets)
                words, brackets = [], None
            case ":" if (
                depth == 0 and not is_open and not is_literal and not (words and words[-1].endswith("mailto"))
            ):
                words.clear()  # the name of a group
            case sign:
                is_literal = (is_literal or sign == "[") and sign != "]"
                write(token[0])
    write(text[end:])
    yield "".join(words), None if brackets is None else "".join(brackets)


def _address_in(entry: tuple[str, str | None]) -> str:
    text, brackets = entry
    address = brackets or ""
    if '"' not in address:
        for sign in "@.":  # there may be blanks around them, which are obsolete
            address = sign.join(word.strip() for word in address.split(sign))
    return _clean(address) or _clean(text)


def _clean(address: str) -> str:
    address = address.strip()
    if address.startswith("@"):
        address = address.rpartition(":")[2]  # a route, which is obsolete
    return address[7:].partition("?")[0] if address[:7].lower() == "mailto:" else address


def message_id_in(text: str) -> str | None:
    """Return the Message-ID in a header, which may have comments and blanks in it, or None."""
    in_brackets = _BRACKETS.search(text)
    return message_id_of("".join(in_brackets[0].split()) if in_brackets else text)
