"""Types of the fields in requests and webhooks: the values that they accept, and how they convert them.

Each type states its rule twice: for pydantic, and for the readers of the OpenAPI document. Addresses need the
validation context of `context_of`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Never

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from shared.addresses import MAX_ADDRESS_LENGTH, Address
from shared.channels import Channel
from shared.dead_letters import MAX_RESOLUTION_REASON
from shared.phone_numbers import is_sender_id
from shared.suppressions import MAX_SUPPRESSION_DETAIL
from shared.text import LINE_PATTERN, NOT_A_LINE, NOT_TEXT, TEXT_PATTERN

MAX_BODY = 256 * 1024
"""Bytes of a request. A message and its accompanying data have to fit into a NATS message of 1 MiB."""

MAX_RECIPIENTS = 50
"""Members of a group; providers have lower limits."""

MAX_SUBJECT = 998
"""Characters: a line of an e-mail (RFC 5322)."""

MAX_REFERENCE = 255

_MAX_ATTACHMENTS = 10
_MAX_URL = 2_048
_MAX_PROVIDER_ID = 255
_MAX_ERROR_CODE = 64
_MAX_METADATA = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512
_MAX_NUMBER = 2**53
_MAX_FAULTS = 20
_MAX_FIELD_NAME = 100

_TEXT_SCHEMA = {"pattern": TEXT_PATTERN}
_LINE_SCHEMA = {"pattern": LINE_PATTERN}

_URL = (
    r"(?:[hH][tT][tT][pP][sS]?://(?=[^/?#])"  # of the web, with a host
    r"|(?![A-Za-z][A-Za-z0-9+.\-]*:))"  # or without a scheme
    r"[^\s\x00-\x20\x7f-\x9f]+"
)
_URL_PATTERN = re.compile(_URL)

_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?", flags=re.ASCII
)

_OFFSET = re.compile(r"([Zz]|[+-]\d\d:\d\d)\Z", flags=re.ASCII)

_DETAILS = {
    "extra_forbidden": "is not a field of this request",
    "missing": "is required",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}

NO_RECIPIENT = "is an alphanumeric sender id, which messages cannot be sent to"
"""The fault of a recipient."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in a field, which is a path such as `attachments.0`, a query parameter or a header."""

    field: Annotated[str, Field(description="Path in the body, query parameter or header", examples=["to"])]
    detail: Annotated[str, Field(examples=["is not a valid phone number"])]


def faults_of(errors: Iterable[Mapping[str, Any]], *, whole: str = "body") -> list[Fault]:
    """Translate pydantic's errors, without repeating the values.

    Args:
        errors: as `ValidationError.errors()` lists them.
        whole: the name for a fault that concerns no particular field.
    """
    return [Fault(_field_name(error["loc"]) or whole, _detail(error)) for error in list(errors)[:_MAX_FAULTS]]


def _detail(error: Mapping[str, Any]) -> str:
    return _DETAILS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _field_name(location: Iterable[object]) -> str:
    # The name of an unknown field comes from the client, and may contain anything.
    return ".".join(map(str, location))[:_MAX_FIELD_NAME].encode(errors="replace").decode()


def context_of(default_region: str) -> dict[str, str]:
    """Return the validation context that addresses need.

    Args:
        default_region: ISO 3166 country of phone numbers in national form.
    """
    return {"default_region": default_region}


def _text(value: str) -> str:
    if NOT_TEXT.search(value):
        raise ValueError("contains control characters or lone surrogates")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _line(value: str) -> str:
    if NOT_A_LINE.search(value):
        raise ValueError("contains control characters, line breaks or lone surrogates")
    return value


def _url(value: str) -> str:
    if NOT_A_LINE.search(value) or not _URL_PATTERN.fullmatch(value):
        raise ValueError("is neither an http or https URL nor a relative one")
    return value


def _timestamp(value: object) -> datetime:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        raise ValueError("is not a timestamp such as 2024-11-01T14:00:00Z")
    try:
        moment = datetime.fromisoformat(value.upper())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("is not a valid time") from exc


def _moment(value: object) -> datetime:
    moment = _timestamp(value)
    if not _OFFSET.search(str(value)):
        raise ValueError("has no offset from UTC, such as Z or +01:00")
    return moment


def _phone(value: object, info: ValidationInfo) -> Address:
    return _address(value, Channel.SMS, info)


def _recipient_phone(value: object, info: ValidationInfo) -> Address:
    address = _phone(value, info)
    if is_sender_id(address):
        raise ValueError(NO_RECIPIENT)
    return address


def _recipient_phones(value: object, info: ValidationInfo) -> Address | list[Address]:
    if not isinstance(value, list):
        return _recipient_phone(value, info)
    if not 1 <= len(value) <= MAX_RECIPIENTS:
        raise ValueError(f"must have 1 to {MAX_RECIPIENTS} recipients")
    recipients = []
    for number, each in enumerate(value, 1):
        try:
            recipients.append(_recipient_phone(each, info))
        except ValueError as exc:
            raise ValueError(f"recipient {number} {exc}") from exc
    return recipients


def _email(value: object, info: ValidationInfo) -> Address:
    return _address(value, Channel.EMAIL, info)


def _address(value: object, channel: Channel, info: ValidationInfo) -> Address:
    if not isinstance(value, str):
        raise ValueError("should be a string")  # noqa: TRY004 - pydantic collects ValueErrors
    return channel.parse_address(value, default_region=(info.context or {})["default_region"])


def _number_as_text(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # To JSON, 1.0 is as much of an integer as 1 is.
        return str(int(value)) if value == value // 1 and abs(value) <= _MAX_NUMBER else value
    return value


def _address_schema(format_: str, description: str, example: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "format": format_,
            "minLength": 1,
            "maxLength": MAX_ADDRESS_LENGTH,
            "description": description,
            "examples": [example],
        }
    )


PHONE_SCHEMA = _address_schema(
    "phone-number",
    "A phone number in E.164 or national form, a short code, or an alphanumeric sender id",
    "+12016661234",
)
EMAIL_SCHEMA = _address_schema(
    "email-address",
    "An e-mail address, optionally in the form `Name <a@b.c>` or `[a@b.c](mailto:a@b.c)`",
    "user@usehatchapp.com",
)
Phone = Annotated[Address, PlainValidator(_phone), PHONE_SCHEMA]
_RECIPIENT_SCHEMA = _address_schema(
    "phone-number", "A phone number in E.164 or national form, or a short code", "+18045551234"
).json_schema
RecipientPhones = Annotated[
    Address | list[Address],
    PlainValidator(_recipient_phones),
    WithJsonSchema(
        {
            "oneOf": [
                _RECIPIENT_SCHEMA,
                {
                    "type": "array",
                    "items": _RECIPIENT_SCHEMA,
                    "minItems": 1,
                    "maxItems": MAX_RECIPIENTS,
                    "description": "The members of a group, for an MMS",
                },
            ]
        }
    ),
]
"""A recipient of a text message, or a list of them."""
Email = Annotated[Address, PlainValidator(_email), EMAIL_SCHEMA]

Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra=_TEXT_SCHEMA)]
SmsText = Annotated[
    str,
    Field(max_length=Channel.SMS.rules.max_body, json_schema_extra=_TEXT_SCHEMA),
    AfterValidator(_text),
]
Subject = Annotated[str, Field(max_length=MAX_SUBJECT, json_schema_extra=_LINE_SCHEMA), AfterValidator(_line)]
Attachments = Annotated[
    list[
        Annotated[
            str,
            Field(min_length=1, max_length=_MAX_URL, json_schema_extra={"pattern": f"^{_URL}$"}),
            AfterValidator(_url),
        ]
    ],
    Field(max_length=_MAX_ATTACHMENTS),
]
Timestamp = Annotated[
    datetime,
    PlainValidator(_timestamp),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339; UTC if there is no offset",
            "examples": ["2024-11-01T14:00:00Z"],
        }
    ),
]
Moment = Annotated[
    datetime,
    PlainValidator(_moment),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339",
            "examples": ["2024-11-01T14:00:00Z"],
        }
    ),
]

ProviderId = Annotated[
    str,
    Field(min_length=1, max_length=_MAX_PROVIDER_ID, json_schema_extra=_LINE_SCHEMA),
    AfterValidator(_line),
]
Reference = Annotated[
    str,
    Field(min_length=1, max_length=MAX_REFERENCE, json_schema_extra=_LINE_SCHEMA),
    AfterValidator(_line),
]
MetadataKey = Annotated[
    str,
    Field(min_length=1, max_length=_MAX_METADATA_KEY, json_schema_extra=_LINE_SCHEMA),
    AfterValidator(_line),
]
MetadataValue = Annotated[
    str,
    Field(max_length=_MAX_METADATA_VALUE, json_schema_extra=_TEXT_SCHEMA),
    AfterValidator(_text),
]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=_MAX_METADATA)]

_REASON_SCHEMA = {"minLength": 1, "pattern": TEXT_PATTERN}
ResolutionReason = Annotated[
    str,
    Field(max_length=MAX_RESOLUTION_REASON, json_schema_extra=_REASON_SCHEMA),
    AfterValidator(_text),
    AfterValidator(_not_blank),
]
SuppressionReason = Annotated[
    str,
    Field(max_length=MAX_SUPPRESSION_DETAIL, json_schema_extra=_REASON_SCHEMA),
    AfterValidator(_text),
    AfterValidator(_not_blank),
]
ErrorCode = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_line),
    Field(max_length=_MAX_ERROR_CODE),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "maxLength": _MAX_ERROR_CODE,
            **_LINE_SCHEMA,
            "minimum": -_MAX_NUMBER,
            "maximum": _MAX_NUMBER,
        }
    ),
]

_MAX_DEPTH = 64
"""Levels of nested arrays and objects. Readers of the streams have higher limits of their own."""


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - JSON may be anything
    """Parse JSON. Strings in it may still contain lone surrogates, so that their field can be named.

    Raises:
        ValueError: the body is not UTF-8, not JSON, or nested too deeply.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise ValueError("The body is not UTF-8") from exc
    return parse_json_text(text, json.JSONDecoder(parse_constant=_refuse_constant))


def parse_json_text(text: str, decoder: json.JSONDecoder) -> Any:  # noqa: ANN401 - JSON may be anything
    """Parse JSON with a decoder, and raise ValueError if it is not JSON or is nested too deeply."""
    try:
        value = decoder.decode(text)
    except RecursionError as exc:
        raise ValueError("The body is nested too deeply") from exc
    except ValueError as exc:
        raise ValueError(f"The body is not JSON: {exc}") from exc
    if _is_deeper(value, _MAX_DEPTH):
        raise ValueError("The body is nested too deeply")
    return value


def _refuse_constant(constant: str) -> Never:
    raise ValueError(f"{constant} is not a JSON number")


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in value)
