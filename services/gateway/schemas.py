"""The bodies of requests.

Clients get every mistake pointed out, an unknown field included, which may be a misspelt one. Providers add
fields without notice, and what they send cannot be asked for again, so webhooks are read generously.
"""

import re
from typing import Annotated, ClassVar, Literal, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shared.validation import (
    Attachments,
    Email,
    ErrorCode,
    Moment,
    Phone,
    ProviderId,
    ReceiptStatus,
    RecipientPhone,
    ResolutionReason,
    SmsText,
    Subject,
    SuppressionReason,
    Text,
    Timestamp,
)
from services.gateway.http.parameters import MAX_CURSOR
from shared.addresses import is_sender_id
from shared.channels import Channel, Direction, MessageType
from shared.ids import MessageId
from shared.keywords import Keyword, keyword_of

_ATTACHMENT: JsonValue = {
    "required": ["attachments"],
    "properties": {"attachments": {"type": "array", "minItems": 1}},
}
_TEXT: JsonValue = {"required": ["body"], "properties": {"body": {"type": "string", "pattern": r"\S"}}}
_ANY_TEXT: JsonValue = {"required": ["body"], "properties": {"body": {"type": "string"}}}
_SELECTED: JsonValue = {"required": ["filter"], "properties": {"filter": {"type": "object"}}}
_ALL: JsonValue = {"required": ["all"], "properties": {"all": {"const": True}}}


def _documented(*examples: dict[str, JsonValue], needs: list[JsonValue] | None = None) -> ConfigDict:
    """Add to a model's schema what its fields do not say.

    Args:
        examples: of the whole body.
        needs: schemas of which one has to hold.
    """
    extra: dict[str, JsonValue] = {"examples": [*examples]}
    return ConfigDict(json_schema_extra=extra if needs is None else {**extra, "anyOf": needs})


def _documented_bulk(example: dict[str, JsonValue]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example], "oneOf": [_SELECTED, _ALL]})


def _example(**fields: JsonValue) -> dict[str, JsonValue]:
    named = {name.rstrip("_"): value for name, value in fields.items()}
    return {**named, "timestamp": "2024-11-01T14:00:00Z"}


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Content(_Request):
    """What all messages have in common, whoever they come from."""

    body: Text | None = None
    attachments: Attachments | None = None
    timestamp: Timestamp | None = Field(default=None, description="When it was written: now, if left out")


class _Send(_Content):
    model_config = ConfigDict(extra="forbid")

    send_at: Moment | None = Field(
        default=None, description="Not to be sent before this, up to 7 days ahead: now, if left out"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.attachments and not re.search(r"\S", self.body or ""):
            raise ValueError("is empty, and there are no attachments")
        return self


class SmsSend(_Send):
    """An SMS or MMS to send."""

    model_config = _documented(
        _example(from_="+12016661234", to="+18045551234", type="sms", body="Hello!", attachments=None),
        _example(
            from_="+12016661234",
            to="(804) 555-1234",
            type="mms",
            body="Look at this",
            attachments=["https://example.com/cat.jpg"],
        ),
        needs=[_TEXT, _ATTACHMENT],
    )

    from_: Phone = Field(alias="from")
    to: RecipientPhone
    type: Literal["sms", "mms"]
    body: SmsText | None = None

    @field_validator("type")
    @classmethod
    def _from_a_number(cls, type_: str, info: ValidationInfo) -> str:
        if type_ == MessageType.MMS and "from_" in info.data and is_sender_id(info.data["from_"]):
            raise ValueError("cannot be mms from an alphanumeric sender id: providers send only sms from one")
        return type_

    @property
    def subject(self) -> None:
        return None


class EmailSend(_Send):
    """An e-mail to send; its body may be HTML."""

    model_config = _documented(
        _example(
            from_="[user@usehatchapp.com](mailto:user@usehatchapp.com)",
            to="contact@gmail.com",
            subject="Greetings",
            body="<p>Hello!</p>",
            attachments=[],
        ),
        needs=[_TEXT, _ATTACHMENT],
    )

    from_: Email = Field(alias="from")
    to: Email
    type: Literal["email"] = "email"
    subject: Subject | None = None


class _Webhook(_Content):
    provider: ClassVar[str]

    @property
    def email_id(self) -> str | None:
        """Message-ID of an e-mail (RFC 5322, 3.6.4), if its provider tells."""
        return None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.body is None and not self.attachments:
            raise ValueError("is missing, and there are no attachments")
        return self


class SmsWebhook(_Webhook):
    """An SMS or MMS that somebody sent us."""

    provider: ClassVar[str] = "generic_sms"
    model_config = _documented(
        _example(
            from_="+18045551234",
            to="+12016661234",
            type="sms",
            messaging_provider_id="message-1",
            body="Hello!",
            attachments=None,
        ),
        needs=[_ANY_TEXT, _ATTACHMENT],
    )

    from_: Phone = Field(alias="from")
    to: Phone
    type: Literal["sms", "mms"]
    provider_message_id: ProviderId = Field(alias="messaging_provider_id")

    @property
    def subject(self) -> None:
        return None

    @property
    def keyword(self) -> Keyword | None:
        return keyword_of(self.body or "")


class EmailWebhook(_Webhook):
    """An e-mail that somebody sent us."""

    provider: ClassVar[str] = "generic_email"
    model_config = _documented(
        _example(
            from_="[user@usehatchapp.com](mailto:user@usehatchapp.com)",
            to="contact@gmail.com",
            xillio_id="message-2",
            body="<p>Hello!</p>",
            attachments=["https://example.com/offer.pdf"],
        ),
        needs=[_ANY_TEXT, _ATTACHMENT],
    )

    from_: Email = Field(alias="from")
    to: Email
    type: Literal["email"] = "email"
    subject: Subject | None = None
    provider_message_id: ProviderId = Field(alias="xillio_id")

    @property
    def keyword(self) -> None:
        """Mails have links for this; words in them mean what they say."""
        return None


class _Receipt(_Request):
    channel: ClassVar[Channel]
    provider: ClassVar[str]

    status: ReceiptStatus
    error_code: ErrorCode | None = Field(default=None, description="The provider's code for what went wrong")
    timestamp: Timestamp | None = Field(default=None, description="When it happened: now, if left out")

    @property
    def message_id(self) -> MessageId | None:
        """Our id of the message, if the provider gives it back."""
        return None

    @property
    def error_detail(self) -> str | None:
        return None

    @property
    def key(self) -> str:
        """Tells the receipts for one message apart."""
        return self.status


class SmsReceipt(_Receipt):
    """What became of an SMS or MMS that the provider had taken."""

    channel: ClassVar[Channel] = Channel.SMS
    provider: ClassVar[str] = SmsWebhook.provider
    model_config = _documented(_example(messaging_provider_id="SM1", status="delivered"))

    provider_message_id: ProviderId = Field(alias="messaging_provider_id")


class EmailReceipt(_Receipt):
    """What became of an e-mail that the provider had taken."""

    channel: ClassVar[Channel] = Channel.EMAIL
    provider: ClassVar[str] = EmailWebhook.provider
    model_config = _documented(_example(xillio_id="EM1", status="bounced", error_code="mailbox_unknown"))

    provider_message_id: ProviderId = Field(alias="xillio_id")


class _Command(_Request):
    model_config = ConfigDict(extra="forbid")


class Discard(_Command):
    """Why nothing more is to be done about a dead letter."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The customer was called"}]})

    reason: ResolutionReason


class DeadLetterSelection(_Command):
    """Which dead letters; every condition has to hold."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    direction: Annotated[Direction | None, Field(strict=False)] = None
    channel: Annotated[Channel | None, Field(strict=False)] = None
    reason: str | None = Field(default=None, min_length=1, max_length=64, description="The code, as listed")
    message_id: Annotated[UUID | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError('names nothing; for all open dead letters, say "all": true instead')
        return self


class _Bulk(_Command):
    filter_: DeadLetterSelection | None = Field(default=None, alias="filter")
    all_: Literal[True] | None = Field(
        default=None, alias="all", description="Instead of a filter: all that are open"
    )
    limit: int = Field(default=100, ge=1, le=1_000, description="How many to go through, at most")
    cursor: str | None = Field(
        default=None,
        max_length=MAX_CURSOR,
        description="`next_cursor` of the call before",
        json_schema_extra={"format": "cursor"},
    )

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if (self.filter_ is None) is (self.all_ is None):
            raise ValueError('needs either "filter" or "all": true')
        return self


class BulkReplay(_Bulk):
    """Which open dead letters to replay."""

    model_config = _documented_bulk({"filter": {"channel": "sms", "reason": "http_503"}, "limit": 500})


class BulkDiscard(_Bulk):
    """Which open dead letters to discard, and why."""

    model_config = _documented_bulk({"all": True, "reason": "Test messages"})

    reason: ResolutionReason


class Suppress(_Command):
    """Why somebody is to get nothing more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Asked for it on the phone"}]})

    reason: SuppressionReason


Send = SmsSend | EmailSend
Webhook = SmsWebhook | EmailWebhook
Receipt = SmsReceipt | EmailReceipt
