"""The fields of requests: what is accepted in each, and what it becomes.

Each type says the same thing twice, to pydantic and to the readers of the OpenAPI document.
"""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from shared.addresses import MAX_ADDRESS_LENGTH, Address, is_sender_id, parse_address
from shared.channels import Channel
from shared.events import MAX_SUPPRESSION_DETAIL, MAX_RESOLUTION_REASON
from shared.lifecycle import Status

MAX_SMS_BODY = 1_600
"""Characters; providers take no more."""

MAX_SUBJECT = 998
"""Characters: a line of a mail (RFC 5322)."""

_MAX_ATTACHMENTS = 10
_MAX_URL = 2_048
_MAX_PROVIDER_ID = 255
_MAX_ERROR_CODE = 64
_MAX_NUMBER = 2**53

# Lone surrogates are refused as well: they are no characters, and cannot be written as UTF-8.
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_SURROGATES = r"\ud800-\udfff"
_BREAKS = r"\t\n\r"
_NOT_TEXT = re.compile(f"[{_CONTROLS}{_SURROGATES}]")
_NOT_A_LINE = re.compile(f"[{_CONTROLS}{_SURROGATES}{_BREAKS}]")
_TEXT_SCHEMA = {"pattern": f"^[^{_CONTROLS}]*$"}
_LINE_SCHEMA = {"pattern": f"^[^{_CONTROLS}{_BREAKS}]*$"}

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

RECEIPT_STATUSES = {
    "accepted": Status.SENT,
    "queued": Status.SENT,
    "sending": Status.SENT,
    "sent": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "undelivered": Status.UNDELIVERED,
    "bounced": Status.UNDELIVERED,
    "rejected": Status.UNDELIVERED,
    "failed": Status.FAILED,
    "expired": Status.EXPIRED,
    "canceled": Status.CANCELED,
}
"""What providers say in receipts, and what we call it."""


def _text(value: str) -> str:
    if _NOT_TEXT.search(value):
        raise ValueError("contains control characters or lone surrogates")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _line(value: str) -> str:
    if _NOT_A_LINE.search(value):
        raise ValueError("contains control characters, line breaks or lone surrogates")
    return value


def readable(text: str) -> str:
    """Replace what `Text` refuses: a provider cannot be asked for another text."""
    return _NOT_TEXT.sub("\ufffd", text)


def on_one_line(text: str, *, limit: int) -> str:
    """Make a line of what may have breaks, of `limit` characters at most."""
    return " ".join(readable(text[: limit * 2]).split())[:limit]


def _url(value: str) -> str:
    if _NOT_A_LINE.search(value) or not _URL_PATTERN.fullmatch(value):
        raise ValueError("is neither an http or https URL nor a relative one")
    return value


def _timestamp(value: object) -> datetime:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        raise ValueError("is not a timestamp such as 2024-11-01T14:00:00Z")
    try:
        moment = datetime.fromisoformat(value.upper())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("is not a time that exists") from exc


def _moment(value: object) -> datetime:
    moment = _timestamp(value)
    if not _OFFSET.search(str(value)):
        raise ValueError("names no offset from UTC, such as Z or +01:00")
    return moment


def _phone(value: object, info: ValidationInfo) -> Address:
    return _address(value, Channel.SMS, info)


def _recipient_phone(value: object, info: ValidationInfo) -> Address:
    address = _phone(value, info)
    if is_sender_id(address):
        raise ValueError("is an alphanumeric sender id, which nothing can be sent to")
    return address


def _email(value: object, info: ValidationInfo) -> Address:
    return _address(value, Channel.EMAIL, info)


def _address(value: object, channel: Channel, info: ValidationInfo) -> Address:
    if not isinstance(value, str):
        raise ValueError("should be a string")  # noqa: TRY004 - pydantic collects ValueErrors
    return parse_address(value, channel, default_region=(info.context or {})["default_region"])


def _receipt_status(value: object) -> Status:
    if not isinstance(value, str) or value not in RECEIPT_STATUSES:
        raise ValueError(f"is none of {', '.join(RECEIPT_STATUSES)}")
    return RECEIPT_STATUSES[value]


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


Phone = Annotated[
    Address,
    PlainValidator(_phone),
    _address_schema(
        "phone-number",
        "A number in E.164 or national form, a short code, or an alphanumeric sender id",
        "+12016661234",
    ),
]
RecipientPhone = Annotated[
    Address,
    PlainValidator(_recipient_phone),
    _address_schema("phone-number", "A number in E.164 or national form, or a short code", "+18045551234"),
]
Email = Annotated[
    Address,
    PlainValidator(_email),
    _address_schema(
        "email-address",
        "An address, which may also come as `Name <a@b.c>` or `[a@b.c](mailto:a@b.c)`",
        "user@usehatchapp.com",
    ),
]

Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra=_TEXT_SCHEMA)]
ProviderText = Annotated[str, AfterValidator(readable)]
SmsText = Annotated[
    str, Field(max_length=MAX_SMS_BODY, json_schema_extra=_TEXT_SCHEMA), AfterValidator(_text)
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
            "description": "RFC 3339; in UTC where it names no offset",
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
ResolutionReason = Annotated[
    str,
    Field(
        max_length=MAX_RESOLUTION_REASON,
        json_schema_extra={"minLength": 1, "pattern": _TEXT_SCHEMA["pattern"]},
    ),
    AfterValidator(_text),
    AfterValidator(_not_blank),
]
SuppressionReason = Annotated[
    str,
    Field(
        max_length=MAX_SUPPRESSION_DETAIL,
        json_schema_extra={"minLength": 1, "pattern": _TEXT_SCHEMA["pattern"]},
    ),
    AfterValidator(_text),
    AfterValidator(_not_blank),
]
ReceiptStatus = Annotated[
    Status,
    PlainValidator(_receipt_status),
    WithJsonSchema({"type": "string", "enum": list(RECEIPT_STATUSES)}),
]
ErrorCode = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_line),
    Field(max_length=_MAX_ERROR_CODE),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": _MAX_ERROR_CODE, **_LINE_SCHEMA},
                {"type": "integer", "minimum": -_MAX_NUMBER, "maximum": _MAX_NUMBER},
            ]
        }
    ),
]
