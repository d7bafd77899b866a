"""The bodies of requests.

Clients get every mistake pointed out, an unknown field included, which may be a misspelt one. Providers add
fields without notice, and what they send cannot be asked for again, so webhooks are read generously.
"""

import re
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from services.gateway.fields import (
    Attachments,
    Email,
    ErrorCode,
    Phone,
    ProviderId,
    ReceiptStatus,
    RecipientPhone,
    SmsText,
    Subject,
    Text,
    Timestamp,
)
from shared.channels import Channel

_ATTACHMENT: JsonValue = {
    "required": ["attachments"],
    "properties": {"attachments": {"type": "array", "minItems": 1}},
}
_TEXT: JsonValue = {"required": ["body"], "properties": {"body": {"type": "string", "pattern": r"\S"}}}
_ANY_TEXT: JsonValue = {"required": ["body"], "properties": {"body": {"type": "string"}}}


def _documented(*examples: dict[str, JsonValue], needs: list[JsonValue] | None = None) -> ConfigDict:
    """Add to a model's schema what its fields do not say.

    Args:
        examples: of the whole body.
        needs: schemas of which one has to hold.
    """
    extra: dict[str, JsonValue] = {"examples": [*examples]}
    return ConfigDict(json_schema_extra=extra if needs is None else {**extra, "anyOf": needs})


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


class _Receipt(_Request):
    channel: ClassVar[Channel]
    provider: ClassVar[str]

    status: ReceiptStatus
    error_code: ErrorCode | None = Field(default=None, description="The provider's code for what went wrong")
    timestamp: Timestamp | None = Field(default=None, description="When it happened: now, if left out")


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


Send = SmsSend | EmailSend
Webhook = SmsWebhook | EmailWebhook
Receipt = SmsReceipt | EmailReceipt
