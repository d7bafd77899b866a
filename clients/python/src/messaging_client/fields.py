"""The fields of messages to send, as arguments; `from_` stands for `from`, which is a keyword of Python."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

Moment = datetime | str


class _Content(TypedDict):
    body: NotRequired[str]
    attachments: NotRequired[list[str]]
    timestamp: NotRequired[Moment]
    send_at: NotRequired[Moment]
    priority: NotRequired[Literal["transactional", "bulk"]]
    reference: NotRequired[str]
    metadata: NotRequired[dict[str, str]]


class _Addresses(TypedDict):
    from_: str
    to: str


class _Mail(TypedDict):
    subject: NotRequired[str]
    body_type: NotRequired[Literal["html", "text"]]
    text: NotRequired[str]
    reply_to: NotRequired[list[str]]
    cc: NotRequired[list[str]]
    bcc: NotRequired[list[str]]


class SmsFields(_Addresses, _Content):
    type: NotRequired[Literal["sms", "mms"]]


class EmailFields(_Addresses, _Content, _Mail):
    pass


class ReplyFields(_Content, _Mail):
    pass


def body_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a request."""
    return {
        "from" if name == "from_" else name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
    }
