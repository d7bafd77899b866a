"""Types of the fields in webhooks of messages.

A provider cannot be asked to correct a value, and the whole message would be lost if it was refused. Values
that cannot be read are therefore dropped or replaced, and named in the warnings of the validation context.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from pydantic import PlainValidator, TypeAdapter, ValidationError, ValidationInfo, WithJsonSchema

from shared.addresses import Address, InvalidAddressError, read_email
from shared.channels import Channel
from shared.providers.mail_headers import is_address, mailboxes, name_of
from shared.text import clean_text
from shared.times import read_time
from shared.validation import EMAIL_SCHEMA, MAX_RECIPIENTS, PHONE_SCHEMA, Attachments, ProviderId

_MAX_LISTED = 10
_SEPARATOR = re.compile(r"[,;|]")
_SIGNS = re.compile(r"[(:;,]")
_SEVERAL = "has several addresses; the first one is used"

_provider_id = TypeAdapter(ProviderId)
_attachments = TypeAdapter(Attachments)


def _warn(info: ValidationInfo, warning: str) -> None:
    warnings, text = (info.context or {})["warnings"], f"{(info.field_name or '').strip('_')}: {warning}"
    if text not in warnings:
        warnings.append(text)


def _address(value: object, info: ValidationInfo, channel: Channel) -> Address | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("should be a string")  # noqa: TRY004 - pydantic collects ValueErrors
    return channel.read_address(value, default_region=(info.context or {})["default_region"])


def _phone(value: object, info: ValidationInfo) -> Address | None:
    return _address(value, info, Channel.SMS)


def _phones(value: object, info: ValidationInfo) -> list[Address]:
    members = value if isinstance(value, list) else _listed(value, info)
    found: dict[str, Address] = {}
    for member in members:
        if len(found) == MAX_RECIPIENTS:
            _warn(info, f"only the first {MAX_RECIPIENTS} of {len(members)} recipients were kept")
            break
        try:
            address = _phone(member, info)
        except ValueError:
            if not isinstance(value, list):
                raise
            _warn(info, "a recipient is not a phone number, and was dropped")
        else:
            found |= {address.key: address} if address else {}
    return [*found.values()]


def _listed(value: object, info: ValidationInfo) -> list[object]:
    """Return the numbers in a text with several of them."""
    numbers = [each for each in _SEPARATOR.split(value) if each.strip()] if isinstance(value, str) else []
    try:
        for number in numbers[:MAX_RECIPIENTS]:
            Channel.SMS.parse_address(number, default_region=(info.context or {})["default_region"])
    except InvalidAddressError:
        return [value]
    return [*numbers] or [value]


def _first_email(value: object, info: ValidationInfo) -> Address | None:
    """Read an address, or the first one of a list."""
    if not isinstance(value, list):
        return _email(value, info)
    found = (address for each in value if isinstance(each, str) and (address := _email(each, info)))
    if len(value) > 1:
        _warn(info, _SEVERAL)
    return next(found, None)


def _email(value: object, info: ValidationInfo) -> Address | None:
    address = _address(value, info, Channel.EMAIL)
    if address is None or (is_address(address.spelling) and not _SIGNS.search(address.spelling)):
        return address
    # It may be copied from a header, with a comment or several addresses in it.
    written = [each for each in mailboxes(str(value)) if is_address(each)]
    if len(written) > 1:
        _warn(info, _SEVERAL)
    found = read_email(written[0]) if written else None
    return replace(found, name=name_of(written[0], [str(value)])) if found else address


def _text(value: object, info: ValidationInfo) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("should be a string")  # noqa: TRY004 - pydantic collects ValueErrors
    text = clean_text(value)
    if text != value:
        _warn(info, "contains characters that cannot be kept, which were replaced")
    return text


def _urls(value: object, info: ValidationInfo) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    kept: list[str] = []
    for url in values:
        try:
            kept += _attachments.validate_python([url], strict=True)
        except ValidationError:
            _warn(info, "an attachment is not a URL, and was dropped")
    if len(kept) > _MAX_LISTED:
        _warn(info, f"only the first {_MAX_LISTED} of {len(kept)} were kept")
    return kept[:_MAX_LISTED]


def _time(value: object, info: ValidationInfo) -> datetime | None:
    moment = read_time(value)
    if moment is None and value is not None and value != "":
        _warn(info, "cannot be read, so the message has the time of its arrival")
    return moment


def _id(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    try:
        return _provider_id.validate_python(value, strict=True)
    except ValidationError:
        return None


ReadPhone = Annotated[Address | None, PlainValidator(_phone), PHONE_SCHEMA]
"""The address of a text message; None if it is missing or withheld."""

ReadPhones = Annotated[
    list[Address],
    PlainValidator(_phones),
    WithJsonSchema(
        {
            "oneOf": [
                PHONE_SCHEMA.json_schema,
                {
                    "type": "array",
                    "items": PHONE_SCHEMA.json_schema,
                    "description": "The recipients in a group",
                },
            ]
        }
    ),
]
"""The recipients of a text message, of which a group has several; empty if they are missing or withheld."""

ReadEmail = Annotated[Address | None, PlainValidator(_first_email), EMAIL_SCHEMA]
ReadText = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
ReadUrls = Annotated[
    list[str],
    PlainValidator(_urls),
    WithJsonSchema({"type": ["array", "null"], "items": {"type": "string", "format": "uri-reference"}}),
]
ReadTime = Annotated[
    datetime | None, PlainValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})
]
ReadId = Annotated[str | None, PlainValidator(_id), WithJsonSchema({"type": "string"})]
"""The provider's id of a message; None if it has none that can be stored."""


def members_of(to: Address | Sequence[Address], from_: Address) -> Sequence[Address]:
    """Return the recipients of a message, each once, without its author, whom some providers list as well."""
    recipients = [to] if isinstance(to, Address) else to
    distinct = {each.key: each for each in recipients if each.key != from_.key}
    return [*distinct.values()] or recipients[:1]
