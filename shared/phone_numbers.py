"""Phone numbers, short codes and alphanumeric sender ids, normalised so that they can be compared.

Numbers become E.164. Short codes and sender ids stay as they are.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneNumber

from shared.addresses import (
    Address,
    InvalidAddressError,
    as_written,
    remove_invisible,
    require_plausible,
)
from shared.text import letters_of

_MAX_WRITTEN = 1_000
"""Characters, including those that cannot be seen."""

_SHORT_CODE = re.compile(r"[0-9]{3,6}")
_LONG_SHORT_CODE = re.compile(r"[0-9]{7,8}")
_SHORT_CODE_WITH_PLUS = re.compile(r"\+(?P<digits>[0-9]{3,8})")
_OTHER_KIND = re.compile(r"(?!tel:)[A-Za-z][A-Za-z0-9+.-]*:.*")
"""An address of another channel, such as `whatsapp:+12016661234`."""

_SENDER_ID = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &_+.-]{1,11}")

_MEXICO, _BENIN, _IVORY_COAST = 52, 229, 225
_OLD_LENGTH = 8
"""Digits of a national number in Benin before 2024 (some are still valid) and in Ivory Coast before 2021."""

_MEXICAN_MOBILE = re.compile(r"1(?P<number>[0-9]{10})")
_IVORIAN_MOBILE = re.compile(r"[04-9](?P<operator>[0-9])[0-9]{6}")
_IVORIAN_PREFIXES = {
    digit: prefix for prefix, digits in (("01", "0123"), ("05", "456"), ("07", "789")) for digit in digits
}

_WITHHELD_WORDS = {
    *("anonymous", "blocked", "hidden", "private", "restricted", "unavailable", "unknown", "withheld"),
    *("n/a", "none", "notavailable", "null", "undefined", "nocallerid", "numberwithheld"),
    "",  # only punctuation, such as a dash
}
_CALLER = re.compile(r"(?<=.)(?:number|caller|callerid|sender)$")
"""The end of phrases such as `Private Number`."""

_WITHHELD_NUMBERS = {"266696687", "7378742833", "2562533", "8656696", "86282452253"}
"""The words above as they are typed on a telephone; some providers report them as numbers."""


def is_sender_id(address: Address) -> bool:
    """Return whether a phone address is an alphanumeric sender id, to which nobody can reply."""
    return is_sender_id_key(address.key)


def is_sender_id_key(key: str) -> bool:
    """Return whether the key of a phone address is an alphanumeric sender id."""
    return _SENDER_ID.fullmatch(key) is not None


def parse_phone(text: str, default_region: str) -> Address:
    """Normalise a phone number to E.164, or keep a short code or an alphanumeric sender id.

    Digits without a `+` are read as the national or the international number that is valid in its numbering
    plan. If both are, digits that begin with the code of the default region are an international number. An
    international number may also begin with `00`.

    A number with a `+` has to be plausible, but not necessarily assigned: numbering plans change faster than
    libraries.

    Args:
        text: as a person or a provider wrote it. Characters that cannot be seen are ignored.
        default_region: ISO 3166 country of phone numbers in national form.

    Raises:
        InvalidAddressError: the text is none of these.
    """
    if len(text) > _MAX_WRITTEN:
        raise InvalidAddressError("is too long")
    text = remove_invisible(text)
    require_plausible(text)
    return _parse_visible(text, default_region)


@lru_cache(maxsize=65_536)
def _parse_visible(text: str, default_region: str) -> Address:
    if _SHORT_CODE.fullmatch(text) or _SENDER_ID.fullmatch(text):
        return Address(text, text)
    number = None if _OTHER_KIND.fullmatch(text) else _read(text, default_region)
    if number is None:
        if _LONG_SHORT_CODE.fullmatch(text):
            return Address(text, text)
        raise InvalidAddressError("is not a valid phone number")
    if number.extension:
        raise InvalidAddressError("has an extension, which messages cannot be sent to")
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return Address(e164, e164)


def read_phone(text: str, default_region: str) -> Address | None:
    """Normalise the sender or recipient of a text message that a provider has delivered.

    Returns:
        The address as it was written if it cannot be normalised, and None if it is missing or withheld.
    """
    address = _read_as_far_as_possible(text, default_region)
    return None if address is None or _is_withheld(address.key) else address


def _read_as_far_as_possible(text: str, default_region: str) -> Address | None:
    try:
        return parse_phone(text, default_region)
    except InvalidAddressError:
        code = _SHORT_CODE_WITH_PLUS.fullmatch(remove_invisible(text[:_MAX_WRITTEN]))
        if code and (address := parse_phone(code["digits"], default_region)).key == code["digits"]:
            return address  # without the plus, it is not a national number either
        return as_written(text)


def _is_withheld(key: str) -> bool:
    letters = letters_of(key)
    words = {key.lower(), letters, _CALLER.sub("", letters)}
    return not words.isdisjoint(_WITHHELD_WORDS) or key.removeprefix("+") in _WITHHELD_NUMBERS


def _read(text: str, default_region: str) -> PhoneNumber | None:
    if text.startswith(("+", "\uff0b")):
        number = _parse(text, default_region)
        current = number and _in_current_plan(number)
        return current if current and phonenumbers.is_possible_number(current) else None
    return next(filter(phonenumbers.is_valid_number, _readings(text, default_region)), None)


def _readings(text: str, default_region: str) -> Iterator[PhoneNumber]:
    forms = [text, f"+{text}"]
    if text.startswith(str(phonenumbers.country_code_for_region(default_region))):
        forms.reverse()
    if text.startswith("00"):
        forms.append(f"+{text[2:]}")  # what most countries dial before an international number
    for form in forms:
        if number := _parse(form, default_region):
            yield _in_current_plan(number)


def _parse(text: str, default_region: str) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException:
        return None


def _in_current_plan(number: PhoneNumber) -> PhoneNumber:
    """Return a number in the plan that its country uses today; providers still report older ones."""
    national = phonenumbers.national_significant_number(number)
    current = national
    if number.country_code == _MEXICO and (mobile := _MEXICAN_MOBILE.fullmatch(national)):
        current = mobile["number"]
    elif number.country_code == _BENIN and len(national) == _OLD_LENGTH:
        current = national if phonenumbers.is_valid_number(number) else f"01{national}"
    elif number.country_code == _IVORY_COAST and (mobile := _IVORIAN_MOBILE.fullmatch(national)):
        current = f"{_IVORIAN_PREFIXES[mobile['operator']]}{national}"
    if current == national:
        return number
    return phonenumbers.parse(f"+{number.country_code}{current}")
