"""The generic providers' webhooks, which differ only in the addresses and the name of the id field.

Providers add fields without notice, and cannot be asked to change their payload, so unknown fields are
ignored.
"""

from collections.abc import Callable
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from shared.addresses import Address
from shared.channels import Channel, MessageType
from shared.events import receipt_id
from shared.keywords import keyword_of
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers.generic.signature import HEADER, check_headers
from shared.providers.webhooks import SignatureScheme, WebhookContent, WebhookRequest, parse_model
from shared.status import Status
from shared.validation import Attachments, ErrorCode, ReceiptStatus, Text, Timestamp

SIGNATURE: SignatureScheme[Any] = SignatureScheme(
    name="WebhookSignature",
    header=HEADER,
    description="Standard Webhooks 1.0, with `webhook-id` and `webhook-timestamp`.",
    check_headers=check_headers,
    verifier=lambda settings: settings.webhook_secret.verify if settings.webhook_secret else None,
    challenge="StandardWebhooks",
)

Parse = Callable[[WebhookRequest], WebhookContent]

_ATTACHMENT: JsonValue = {
    "required": ["attachments"],
    "properties": {"attachments": {"type": "array", "minItems": 1}},
}
_TEXT: JsonValue = {"required": ["body"], "properties": {"body": {"type": "string"}}}


def documented(example: dict[str, JsonValue], **schema: JsonValue) -> ConfigDict:
    """Return the configuration of a model: its example, and what else its JSON schema says."""
    examples: JsonValue = [{**example, "timestamp": "2024-11-01T14:00:00Z"}]
    return ConfigDict(strict=True, frozen=True, json_schema_extra={"examples": examples, **schema})


def documented_message(example: dict[str, JsonValue]) -> ConfigDict:
    return documented(example, anyOf=[_TEXT, _ATTACHMENT])


class InboundPayload(BaseModel):
    """A message as a generic provider posts it; subclasses narrow the fields that they repeat."""

    from_: Address
    to: Address
    type: str
    body: Text | None = None
    attachments: Attachments | None = None
    timestamp: Timestamp | None = Field(default=None, description="When it was written; now by default")
    provider_message_id: str

    @model_validator(mode="after")
    def _require_content(self) -> Self:
        if self.body is None and not self.attachments:
            raise ValueError("is missing, and there are no attachments")
        return self


class ReceiptPayload(BaseModel):
    """A delivery receipt as a generic provider posts it."""

    provider_message_id: str
    status: ReceiptStatus
    error_code: ErrorCode | None = Field(default=None, description="The provider's error code")
    timestamp: Timestamp | None = Field(default=None, description="When it happened; now by default")


class Received(BaseModel):
    """The acknowledgement of a webhook that was stored."""

    id: UUID = Field(description="Our id, which is the same if the provider repeats the webhook")
    status: Status


def message_parser(provider: str, channel: Channel, model: type[InboundPayload]) -> Parse:
    """Return the function that parses a provider's inbound messages."""

    def parse(request: WebhookRequest) -> WebhookContent:
        raw, payload = parse_model(request, model)
        body = payload.body or ""
        message = IncomingMessage.of(
            provider=provider,
            provider_message_id=payload.provider_message_id,
            from_=payload.from_,
            to=payload.to,
            raw=raw,
            keyword=keyword_of(body) if channel.rules.has_keywords else None,
            type=MessageType(payload.type),
            subject=getattr(payload, "subject", None),
            body=body,
            attachments=payload.attachments or [],
            timestamp=payload.timestamp or request.received_at,
            created_at=request.received_at,
        )
        return WebhookContent(messages=[message])

    return parse


def receipt_parser(provider: str, channel: Channel, model: type[ReceiptPayload]) -> Parse:
    """Return the function that parses a provider's delivery receipts."""

    def parse(request: WebhookRequest) -> WebhookContent:
        raw, payload = parse_model(request, model)
        receipt = IncomingReceipt(
            channel=channel,
            provider=provider,
            provider_message_id=payload.provider_message_id,
            key=payload.status,
            status=payload.status,
            error_code=payload.error_code,
            occurred_at=payload.timestamp or request.received_at,
            raw=raw,
        )
        return WebhookContent(receipts=[receipt])

    return parse


def respond_to_message(content: WebhookContent) -> Received:
    return Received(id=content.messages[0].message.id, status=Status.RECEIVED)


def respond_to_receipt(content: WebhookContent) -> Received:
    receipt = content.receipts[0]
    return Received(id=receipt_id(receipt), status=receipt.status)
