"""The bodies of requests and responses for messages."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    SkipValidation,
    ValidationInfo,
    field_validator,
    model_validator,
)

from services.gateway.http.errors import Problem
from services.gateway.http.pagination import Cursor, PageParameters
from services.gateway.http.parameters import ADDRESS_SCHEMA
from shared.addresses import MAX_ADDRESS_LENGTH, Address
from shared.channels import Channel, Direction, MessageType
from shared.message import BodyType, Priority
from shared.phone_numbers import is_sender_id
from shared.resources.messages import ErrorResponse, MessageResponse
from shared.status import Status
from shared.text import LINE_PATTERN
from shared.validation import (
    MAX_REFERENCE,
    Attachments,
    Email,
    Metadata,
    Moment,
    Phone,
    RecipientPhones,
    Reference,
    SmsText,
    Subject,
    Text,
    Timestamp,
)

_MAX_COPIES = 50
_BODY = "The text. It may be missing or empty only if there are attachments"
_ATTACHMENTS = "The URLs of files, which are fetched when the message is sent"

MAX_BATCH = 500
"""Messages. An atomic batch of NATS has at most 1,000."""

_NAME = "^[a-z0-9_]*$"


MailAddresses = Annotated[
    list[Annotated[Email, PlainSerializer(lambda address: address.mailbox, str, when_used="json")]],
    Field(max_length=_MAX_COPIES),
]


def _documented(*examples: dict[str, JsonValue]) -> ConfigDict:
    """Return the configuration of send requests, which refuses unknown fields: they may be misspelt."""
    shown: JsonValue = [{**example, "timestamp": "2024-11-01T14:00:00Z"} for example in examples]
    return ConfigDict(strict=True, frozen=True, extra="forbid", json_schema_extra={"examples": shown})


class Addressed(BaseModel):
    from_: Address
    to: Address | list[Address]
    type: str


class Content(BaseModel):
    """The content of a message of any channel, and how it is sent.

    A field with the name of a field of `Message` becomes that field.
    """

    body: Text | None = Field(default=None, description=_BODY)
    attachments: Attachments | None = Field(default=None, description=_ATTACHMENTS)
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
    reference: Reference | None = Field(
        default=None,
        description="Your own id for the message, such as that of an order; it need not be unique",
    )
    metadata: Metadata | None = Field(
        default=None, description="Your own data about the message: up to 16 keys with texts"
    )

    @model_validator(mode="after")
    def _require_content(self) -> Self:
        if not self.attachments and not re.search(r"\S", self.body or ""):
            raise ValueError("is empty, and there are no attachments")
        return self


class SendRequest(Content, Addressed):
    """The fields of all requests to send; subclasses narrow the addresses, the type and the body."""


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
        {
            "from": "+12016661234",
            "to": ["+18045551234", "+18045551235"],
            "type": "mms",
            "body": "Hello to both of you!",
        },
    )

    from_: Phone = Field(alias="from")
    to: RecipientPhones = Field(description="The recipient, or the other members of a group")
    type: Literal["sms", "mms"]
    body: SmsText | None = Field(default=None, description=_BODY)

    @field_validator("to")
    @classmethod
    def _drop_repeated(cls, to: Address | list[Address], info: ValidationInfo) -> Address | list[Address]:
        """Drop repeated recipients and the sender, so that a client may pass all members of a group."""
        if isinstance(to, Address):
            return to
        sender = info.data.get("from_")
        distinct = {each.key: each for each in to if sender is None or each.key != sender.key}
        members = [*distinct.values()] or to[:1]
        return members if len(members) > 1 else members[0]

    @field_validator("type")
    @classmethod
    def _require_mms_for_group(cls, type_: str, info: ValidationInfo) -> str:
        if type_ != MessageType.MMS and isinstance(info.data.get("to"), list):
            raise ValueError("must be mms for a group of recipients")
        return type_

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


class EmailContent(Content):
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
    bcc: MailAddresses | None = Field(default=None, description="Further recipients, hidden from each other")

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


class EmailRequest(EmailContent, SendRequest):
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


class ReplyRequest(EmailContent):
    """A reply in a conversation; most fields are only for e-mails."""

    model_config = _documented({"body": "See you tomorrow!"})


def _name_alternatives(schema: dict[str, Any]) -> None:
    items = schema["properties"]["messages"]["items"]
    items["oneOf"] = items.pop("anyOf")


class BatchRequest(BaseModel):
    """Messages to send, each of which is validated, and accepted or refused, by itself."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", json_schema_extra=_name_alternatives)
    max_parts: ClassVar[int] = MAX_BATCH

    messages: list[SkipValidation[SmsRequest | EmailRequest]] = Field(
        min_length=1,
        max_length=MAX_BATCH,
        description="Messages of any channel; those without a `priority` are `bulk`",
    )


class BatchItem(BaseModel):
    """The result for a message; one of its fields is null."""

    message: MessageResponse | None = Field(description="The message, if it was accepted")
    problem: Problem | None = Field(description="The reason why it was refused", examples=[None])


class BatchResponse(BaseModel):
    items: list[BatchItem] = Field(description="The results in the order of the request")


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


class MessageQuery(PageParameters):
    """Filters of the messages, apart from those by metadata."""

    status: Status | None = Field(default=None, description="`scheduled` sorts by time, soonest first")
    direction: Direction | None = None
    channel: Channel | None = None
    address: str | None = Field(
        default=None,
        max_length=MAX_ADDRESS_LENGTH,
        description="The phone number or e-mail address of the sender or of the recipient",
        json_schema_extra=ADDRESS_SCHEMA,
        examples=["+18045551234"],
    )
    conversation: str | None = Field(
        default=None, max_length=36, description="Id or key of a conversation", examples=["1"]
    )
    provider: str | None = Field(default=None, max_length=64, pattern=_NAME, examples=["twilio"])
    error_code: str | None = Field(
        default=None,
        max_length=64,
        pattern=LINE_PATTERN,
        description="Code of the error of the latest attempt",
        examples=["30003"],
    )
    reference: str | None = Field(
        default=None,
        max_length=MAX_REFERENCE,
        pattern=LINE_PATTERN,
        description="The sender's own id for the message",
        examples=["order-17"],
    )
    created_since: Moment | None = Field(default=None, description="Accepted at or after this time")
    created_before: Moment | None = Field(default=None, description="Accepted before this time")


MessageParameters = Annotated[MessageQuery, Query()]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """The conditions of a list of messages.

    Attributes:
        address: the key of an address.
        metadata: keys and values that the metadata contains.
    """

    status: Status | None = None
    direction: Direction | None = None
    channel: Channel | None = None
    address: str | None = None
    conversation: int | UUID | None = None
    provider: str | None = None
    error_code: str | None = None
    reference: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    created_since: datetime | None = None
    created_before: datetime | None = None


class NewestCursor(Cursor):
    created_at: AwareDatetime
    id: UUID

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(created_at=row.created_at, id=row.id)


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
