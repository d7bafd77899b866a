"""Addresses of participants: phone numbers and e-mail addresses, normalised so that they can be compared.

Phone numbers become E.164; short codes and alphanumeric sender ids stay as they are. An e-mail address
keeps the spelling that it was given, for sending, and is compared by its key.
"""

import re
from dataclasses import dataclass
from email.utils import quote
from functools import lru_cache

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from shared.text import NOT_A_LINE

MAX_ADDRESS_LENGTH = 320
"""Characters: 64 of a local part, the @, 255 of a domain (RFC 5321)."""

_MARKDOWN_LINK = re.compile(r"\[[^\]]*\]\(mailto:(?P<address>[^)]+)\)")
_MAILBOX = re.compile(r"(?P<name>.*)<(?P<address>[^<>]*)>")
_QUOTED = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')
_SEVERAL = re.compile(r"[<>]|@[^,;]*[,;]")
"""Part of a name that is not quoted, and in which there is another address."""

_ATOMS = re.compile(r'[^()<>\[\]:;@\\,."]+')
"""A name that need not be quoted (RFC 5322, 3.2.3)."""

_SHORT_CODE = re.compile(r"[0-9]{3,6}")
_SENDER_ID = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &_+.-]{1,11}")


class InvalidAddressError(ValueError):
    """The text is not an address of the expected kind; the message explains why."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address as it is displayed and sent to (`spelling`), and as it is compared (`key`).

    Attributes:
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


def is_sender_id(address: Address) -> bool:
    """Return whether a phone address is an alphanumeric sender id, to which nobody can reply."""
    return is_sender_id_key(address.key)


def is_sender_id_key(key: str) -> bool:
    """Return whether the key of a phone address is an alphanumeric sender id."""
    return _SENDER_ID.fullmatch(key) is not None


@lru_cache(maxsize=65_536)
def parse_phone(text: str, default_region: str) -> Address:
    """Normalise a phone number to E.164, or keep a short code or an alphanumeric sender id.

    A number has to be plausible, but not necessarily assigned: numbering plans change faster than libraries.

    Args:
        text: as a person or a provider wrote it.
        default_region: ISO 3166 country of phone numbers in national form.

    Raises:
        InvalidAddressError: the text is none of these.
    """
    _require_plausible(text)
    text = text.strip()
    if _SHORT_CODE.fullmatch(text) or _SENDER_ID.fullmatch(text):
        return Address(text, text)
    try:
        number = phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException as exc:
        raise InvalidAddressError("is not a phone number") from exc
    if number.extension:
        raise InvalidAddressError("has an extension, which messages cannot be sent to")
    possible = phonenumbers.is_possible_number_with_reason(number)
    if possible != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise InvalidAddressError("is not a valid phone number")
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return Address(e164, e164)


@lru_cache(maxsize=65_536)
def parse_email(text: str) -> Address:
    """Parse `a@b.c`, `Name <a@b.c>` or `[a@b.c](mailto:a@b.c)`, without asking DNS.

    The name may be in any script, and need not be quoted.

    Raises:
        InvalidAddressError: the text is none of these.
    """
    _require_plausible(text)
    text = text.strip()
    name = None
    if link := _MARKDOWN_LINK.fullmatch(text):
        text = link["address"]
    elif mailbox := _MAILBOX.fullmatch(text):
        name, text = _name_of(mailbox["name"].strip()), mailbox["address"].strip()
    try:
        email = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as exc:
        raise InvalidAddressError(f"is not an e-mail address: {exc}") from exc
    return Address(email.normalized, email.normalized.casefold(), name)


def _name_of(text: str) -> str | None:
    if quoted := _QUOTED.fullmatch(text):
        return re.sub(r"\\(.)", r"\1", quoted["text"]).strip() or None
    if _SEVERAL.search(text):
        raise InvalidAddressError("is more than one e-mail address")
    return text or None


def _require_plausible(text: str) -> None:
    if len(text) > MAX_ADDRESS_LENGTH:
        raise InvalidAddressError(f"is longer than {MAX_ADDRESS_LENGTH} characters")
    if NOT_A_LINE.search(text):
        raise InvalidAddressError("contains control characters")
