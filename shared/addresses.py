"""Addresses of participants: phone numbers and e-mail addresses, normalised so that they can be compared.

Phone numbers become E.164; short codes and alphanumeric sender ids stay as they are. An e-mail address
keeps the spelling that it was given, for sending, and is compared by its key.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from shared.text import single_line

MAX_ADDRESS_LENGTH = 320
"""Characters: 64 of a local part, the @, 255 of a domain (RFC 5321)."""

_MARKDOWN_LINK = re.compile(r"\[[^\]]*\]\(mailto:(?P<address>[^)]+)\)")
_SHORT_CODE = re.compile(r"[0-9]{3,6}")
_SENDER_ID = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &_+.-]{1,11}")


class InvalidAddressError(ValueError):
    """The text is not an address of the expected kind; the message explains why."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address as it is displayed and sent to (`spelling`), and as it is compared (`key`)."""

    spelling: str
    key: str


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
    """Extract the address from `a@b.c`, `Name <a@b.c>` or `[a@b.c](mailto:a@b.c)`, without asking DNS.

    Raises:
        InvalidAddressError: the text is none of these.
    """
    _require_plausible(text)
    text = text.strip()
    if link := _MARKDOWN_LINK.fullmatch(text):
        text = link["address"]
    try:
        email = validate_email(
            text, check_deliverability=False, allow_display_name=True, test_environment=True
        )
    except EmailNotValidError as exc:
        raise InvalidAddressError(f"is not an e-mail address: {exc}") from exc
    return Address(email.normalized, email.normalized.casefold())


def read_email(text: str) -> Address | None:
    """Return the address of a mailbox, as it was written if it is not a valid one; None if it is empty."""
    written = single_line(text, limit=MAX_ADDRESS_LENGTH)
    with suppress(InvalidAddressError):
        return parse_email(written)
    return Address(written, written.lower()) if written else None


def withheld_sender(written: str, message_id: str) -> Address:
    """Return an address for a sender that is missing or withheld, so that no other message has the same one.

    Args:
        written: what the message has instead of an address.
        message_id: the provider's id of the message.
    """
    spelling = single_line(written, limit=MAX_ADDRESS_LENGTH) or "unknown"
    return Address(spelling, single_line(f"unknown:{message_id}", limit=MAX_ADDRESS_LENGTH))


def _require_plausible(text: str) -> None:
    if len(text) > MAX_ADDRESS_LENGTH:
        raise InvalidAddressError(f"is longer than {MAX_ADDRESS_LENGTH} characters")
    if not text.isprintable():
        raise InvalidAddressError("contains control characters")
