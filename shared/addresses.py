"""Addresses of participants, and e-mail addresses in particular, normalised so that they can be compared.

An e-mail address keeps the spelling that it was given, for sending, and is compared by its key.
"""

import re
import string
import unicodedata
from dataclasses import dataclass
from email.utils import quote
from functools import lru_cache

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

from shared.text import NOT_A_LINE, single_line

MAX_ADDRESS_LENGTH = 320
"""Characters: 64 of a local part, the @, 255 of a domain (RFC 5321)."""

_MAX_NAME = 320

_MARKDOWN_LINK = re.compile(r"\[[^\]]*\]\(mailto:(?P<address>[^)]+)\)")
_MAILBOX = re.compile(r"(?P<name>.*)<(?P<address>[^<>]*)>")
_QUOTED = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')
_NEEDLESS_QUOTES = re.compile(r"^\"([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+)\"@")
"""Some programs write `"a..b"@c.d`, and others `a..b@c.d`, for one mailbox."""

_SEVERAL = re.compile(r"[<>]|@[^@,;]*[,;]")
"""Part of a name that is not quoted, and in which there is another address."""

_ATOMS = re.compile(r'[^()<>\[\]:;@\\,."]+')
"""A name that need not be quoted (RFC 5322, 3.2.3)."""

_ENDS = "".join(
    (
        string.whitespace,
        "\u00a0\u00ad\u3000\ufeff",
        *map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070))),
    )
)
"""Blanks, and characters that cannot be seen, which are easily copied with an address."""

_INVISIBLE = "Cf"
"""Unicode's category of format characters, such as zero-width spaces and marks of the writing direction."""


class InvalidAddressError(ValueError):
    """The text is not an address of the expected kind; the message explains why."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address.

    Attributes:
        spelling: the address as it is displayed, and given to providers.
        key: the address, normalised for comparison.
        name: the display name beside an e-mail address, in any script.
    """

    spelling: str
    key: str
    name: str | None = None

    @property
    def mailbox(self) -> str:
        """The address with its name, if it has one: `a@b.c` or `Name <a@b.c>`."""
        if self.name is None:
            return self.spelling
        if _ATOMS.fullmatch(self.name):
            return f"{self.name} <{self.spelling}>"
        return f'"{quote(self.name)}" <{self.spelling}>'


@lru_cache(maxsize=65_536)
def parse_email(text: str) -> Address:
    """Parse `a@b.c`, `Name <a@b.c>` or `[a@b.c](mailto:a@b.c)`, without asking DNS.

    The name may be in any script, and need not be quoted.

    The key is in Unicode's normalisation form C and in lower case, and its domain is in ASCII (IDNA 2008).

    Raises:
        InvalidAddressError: the text is none of these, or no provider sends to the address.
    """
    if len(text) > MAX_ADDRESS_LENGTH + _MAX_NAME:
        raise InvalidAddressError("is too long")
    if NOT_A_LINE.search(text):
        raise InvalidAddressError("contains control characters")
    name, written = _split(text)
    require_plausible(written)
    address = _normalise(written, name)
    if not address.spelling.rpartition("@")[0].isascii():
        raise InvalidAddressError("has characters before the @ that providers do not send to")
    return address


def read_email(text: str) -> Address | None:
    """Normalise the address in a mailbox of an e-mail that a provider has delivered.

    Returns:
        The address as it was written if it cannot be normalised, and None if it is missing.
    """
    text = single_line(text, limit=MAX_ADDRESS_LENGTH + _MAX_NAME)
    name = None
    try:
        name, text = _split(text)
        text = _NEEDLESS_QUOTES.sub(r"\1@", text)
        require_plausible(text)
        return _normalise(text, name)
    except InvalidAddressError:
        return as_written(text, name)


def as_written(text: str, name: str | None = None) -> Address | None:
    """Return an address that cannot be normalised, or None if the text is empty."""
    cut = single_line(text, limit=MAX_ADDRESS_LENGTH)  # normalising a long text may take quadratic time
    spelling = unicodedata.normalize("NFC", cut)[:MAX_ADDRESS_LENGTH]
    return Address(spelling, _lower(spelling), name) if spelling else None


def withheld_sender(written: str, message_id: str) -> Address:
    """Return the sender of a message that does not name one.

    Args:
        written: the text in place of an address, which may be empty.
        message_id: an id that no other message has. Each of these messages is a conversation of its own.
    """
    spelling = single_line(written, limit=MAX_ADDRESS_LENGTH) or "unknown"
    return Address(spelling, f"withheld#{message_id}"[:MAX_ADDRESS_LENGTH])


def remove_invisible(text: str) -> str:
    """Remove characters that cannot be seen, which are easily pasted with a number, and spaces around it."""
    if not text.isascii():  # no such character is in ASCII
        text = "".join(char for char in text if unicodedata.category(char) != _INVISIBLE)
    return text.strip()


def require_plausible(text: str) -> None:
    """Raise InvalidAddressError if a text is too long or has control characters."""
    if len(text) > MAX_ADDRESS_LENGTH:
        raise InvalidAddressError(f"is longer than {MAX_ADDRESS_LENGTH} characters")
    if NOT_A_LINE.search(text):
        raise InvalidAddressError("contains control characters")


def _split(text: str) -> tuple[str | None, str]:
    """Return the display name and the address of a mailbox."""
    text = text.strip(_ENDS)
    if link := _MARKDOWN_LINK.fullmatch(text):
        return None, link["address"]
    if mailbox := _MAILBOX.fullmatch(text):
        return _name_of(mailbox["name"].strip()), _unquote(mailbox["address"].strip(_ENDS))
    return None, _unquote(text)


def _unquote(address: str) -> str:
    """Remove the apostrophes around an address, as some mail programs write them."""
    is_quoted = len(address) > 1 and address[0] == address[-1] == "'"
    return address[1:-1] if is_quoted else address


def _name_of(text: str) -> str | None:
    if quoted := _QUOTED.fullmatch(text):
        return re.sub(r"\\(.)", r"\1", quoted["text"]).strip() or None
    if _SEVERAL.search(text):
        raise InvalidAddressError("is more than one e-mail address")
    return text or None


def _normalise(text: str, name: str | None) -> Address:
    try:
        email = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as exc:
        raise InvalidAddressError(f"is not an e-mail address: {exc}") from exc
    return Address(email.normalized, _key_of(email), name)


def _key_of(email: ValidatedEmail) -> str:
    return _lower(f"{email.local_part}@{email.ascii_domain}")


def _lower(text: str) -> str:
    """Return a text in lower case, in which a few letters become two."""
    return unicodedata.normalize("NFC", text.lower())[:MAX_ADDRESS_LENGTH]
