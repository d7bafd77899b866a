"""The bodies of requests and responses for messages."""

import re
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from services.gateway.http.pagination import Cursor, PageParameters
from shared.addresses import Address
from shared.channels import Channel, MessageType
from shared.message import BodyType, Priority
from shared.phone_numbers import is_sender_id
from shared.resources.messages import ErrorResponse, MessageResponse
from shared.status import Status
from shared.validation import (
    Attachments,
    Email,
    Moment,
    Phone,
    RecipientPhone,
    SmsText,
    Subject,
    Text,
    Timestamp,
)

_ATTACHMENT: JsonValue = {
    "required": ["attachments"],
    "properties": {"attachments": {"type": "array", "minItems": 1}},
}
_TEXT: JsonValue = {"required": ["body"], "properties": {"body": {"type": "string", "pattern": r"\S"}}}

_MAX_COPIES = 50


MailAddresses = Annotated[list[Email], Field(max_length=_MAX_COPIES)]


def _documented(*examples: dict[str, JsonValue]) -> ConfigDict:
    """Return the configuration of send requests, which refuses unknown fields: they may be misspelt."""
    shown: JsonValue = [{**example, "timestamp": "2024-11-01T14:00:00Z"} for example in examples]
    schema: dict[str, JsonValue] = {"examples": shown, "anyOf": [_TEXT, _ATTACHMENT]}
    return ConfigDict(strict=True, frozen=True, extra="forbid", json_schema_extra=schema)


class SendRequest(BaseModel):
    """The fields of all requests to send; subclasses narrow the addresses, the type and the body.

    A field with the name of a field of `Message` becomes that field.
    """

    from_: Address
    to: Address
    type: str

    body: Text | None = None
    attachments: Attachments | None = None
    timestamp: Timestamp | None = Field(
        default=None, description="When the message was written; now by default"
    )
    send_at: Moment | None = Field(
        default=None, description="The message is not sent before this time, which may be up to 7 days ahead"
    )
    priority: Priority | None = Field(
        default=None,
        strict=False,  # a body with faults is validated as Python values, in which this is a string
        description="Transactional messages, the default, do not wait for bulk ones. Within a conversation, "
        "messages of the same priority are sent in order",
    )

    @model_validator(mode="after")
    def _require_content(self) -> Self:
        if not self.attachments and not re.search(r"\S", self.body or ""):
            raise ValueError("is empty, and there are no attachments")
        return self


class SmsRequest(SendRequest):
    """An SMS or MMS to send."""

    model_config = _documented(
        {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "Hello!", "attachments": None},
        {
            "from": "+12016661234",
            "to": "(804) 555-1234",
            "type": "mms",
            "body": "Look at this",
            "attachments": ["https://example.com/cat.jpg"],
        },
    )

    from_: Phone = Field(alias="from")
    to: RecipientPhone
    type: Literal["sms", "mms"]
    body: SmsText | None = None

    @field_validator("type")
    @classmethod
    def _require_number_for_mms(cls, type_: str, info: ValidationInfo) -> str:
        if type_ == MessageType.MMS and _is_from_sender_id(info):
            raise ValueError("cannot be mms from an alphanumeric sender id, which can only send sms")
        return type_

    @field_validator("attachments")
    @classmethod
    def _require_number_for_attachments(
        cls, attachments: list[str] | None, info: ValidationInfo
    ) -> list[str] | None:
        if attachments and info.data.get("type") == MessageType.SMS and _is_from_sender_id(info):
            raise ValueError("cannot be sent from an alphanumeric sender id, which can only send sms")
        return attachments


def _is_from_sender_id(info: ValidationInfo) -> bool:
    return "from_" in info.data and is_sender_id(info.data["from_"])


class EmailRequest(SendRequest):
    """An e-mail to send; its body may be HTML. Addresses may have display names, in any script."""

    model_config = _documented(
        {
            "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
            "to": "contact@gmail.com",
            "subject": "Greetings",
            "body": "<p>Hello!</p>",
            "attachments": [],
        },
        {
            "from": "Casey's Garage <office@example.com>",
            "to": "李雷 <lilei@example.org>",
            "cc": ["Ann <ann@example.com>"],
            "reply_to": ["bookings@example.com"],
            "subject": "Your appointment",
            "body": "<p>Is <b>nine</b> convenient?</p>",
            "body_type": "html",
            "text": "Is nine convenient?",
        },
    )

    from_: Email = Field(alias="from")
    to: Email
    type: Literal["email"] = "email"
    subject: Subject | None = Field(
        default=None, description="An e-mail that answers one has the subject `Re: …` by default"
    )
    body_type: BodyType | None = Field(
        default=None,
        description="Whether the body is HTML. By default it is if there is a `text` beside it, or if it "
        "contains an HTML tag",
    )
    text: Text | None = Field(
        default=None, description="The plain text of an HTML body; by default, it is extracted from the HTML"
    )
    reply_to: MailAddresses | None = Field(default=None, description="Where replies should be sent")
    cc: MailAddresses | None = Field(
        default=None, description="Further recipients, who are not participants of the conversation"
    )
    bcc: MailAddresses | None = Field(default=None, description="The same, hidden from each other")

    @field_validator("text")
    @classmethod
    def _require_html(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text and info.data.get("body_type") == "text":
            raise ValueError("cannot accompany a body that is plain text itself")
        return text

    @field_validator("reply_to", "cc", "bcc")
    @classmethod
    def _drop_repeated(cls, addresses: list[Address] | None, info: ValidationInfo) -> list[Address] | None:
        """Drop addresses that occur earlier, since an e-mail reaches each of its recipients once."""
        distinct = {address.key: address for address in reversed(addresses or [])}
        if info.field_name != "reply_to":
            earlier = [info.data.get("to"), *(info.data.get("cc") or [])]
            known = {address.key for address in earlier if address}
            distinct = {key: address for key, address in distinct.items() if key not in known}
        return [*reversed(distinct.values())]


class HistoryEntry(BaseModel):
    """A report on a message."""

    status: Status
    source: str = Field(description="`event` of this service, or `receipt` of the provider")
    generation: int = Field(description="0, and one higher after each replay of the message's dead letter")
    attempt: int
    provider: str | None
    provider_message_id: str | None
    error: ErrorResponse | None
    next_attempt_at: AwareDatetime | None
    occurred_at: AwareDatetime


class MessageWithHistory(MessageResponse):
    history: list[HistoryEntry] = Field(description="The reports on the message, attempt by attempt")


class ScheduledQuery(PageParameters):
    """Filters of the scheduled messages."""

    status: Literal["scheduled"]
    channel: Channel | None = None


ScheduledParameters = Annotated[ScheduledQuery, Query()]


class MessageCursor(Cursor):
    placed_at: AwareDatetime
    created_at: AwareDatetime
    id: UUID

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(placed_at=row.placed_at, created_at=row.created_at, id=row.id)


class ScheduledCursor(Cursor):
    due: AwareDatetime
    id: UUID

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(due=row.due, id=row.id)
