"""The generic providers' webhooks, which differ only in the addresses and the name of the id field.

Providers add fields without notice, and cannot be asked to change their payload, so unknown fields are
ignored.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from shared.addresses import Address, InvalidAddressError
from shared.channels import Channel, MessageType
from shared.events import receipt_id
from shared.keywords import keyword_of
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers.generic.signature import HEADER, check_headers
from shared.providers.webhooks import (
    Bounce,
    SignatureScheme,
    WebhookContent,
    WebhookRequest,
    json_of,
    parse_model,
    storable,
    validate,
)
from shared.status import Status
from shared.text import letters_of, single_line
from shared.validation import Attachments, ProviderId, Text, Timestamp

SIGNATURE: SignatureScheme[Any] = SignatureScheme(
    name="WebhookSignature",
    header=HEADER,
    description="Standard Webhooks 1.0, with `webhook-id` and `webhook-timestamp`.",
    check_headers=check_headers,
    verifier=lambda settings: settings.webhook_secret.verify if settings.webhook_secret else None,
    challenge="StandardWebhooks",
)

_MAX_CODE = 64

_HARD_BOUNCES = {"bounce", "bounced", "hardbounce", "hardbounced"}
"""The words for an e-mail that was returned because nobody can be reached at its address."""

_RECIPIENTS = ("to", "email", "recipient")
"""The fields in which a receipt may name the recipient."""

_EARLIEST_YEAR = 2000
"""Some systems write the year 1 or 1970 if they know no time."""

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


def _number_as_text(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value)) if value == value // 1 else str(value)
    return value


def _word(value: str) -> str:
    if word := single_line(value, limit=_MAX_CODE):
        return word
    raise ValueError("is empty")


def _code(value: object) -> str | None:
    text = _number_as_text(value)
    return single_line(text, limit=_MAX_CODE) or None if isinstance(text, str) else None


def _time_or_none(value: object, parse: ValidatorFunctionWrapHandler) -> datetime | None:
    """Return None for a time that cannot be read: the receipt matters more than its time."""
    try:
        time: datetime | None = parse(value)
    except ValidationError:
        return None
    return time if time and time.year >= _EARLIEST_YEAR else None


_TEXT_OR_NUMBER = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer"}]}

ReceiptId = Annotated[ProviderId, BeforeValidator(_number_as_text), WithJsonSchema(_TEXT_OR_NUMBER)]


class ReceiptPayload(BaseModel):
    """A delivery receipt as a generic provider posts it."""

    provider_message_id: str
    status: Annotated[
        str,
        BeforeValidator(_number_as_text),
        AfterValidator(_word),
        WithJsonSchema(_TEXT_OR_NUMBER),
        Field(description="The provider's word, such as `delivered`; an unknown one changes no status"),
    ]
    error_code: Annotated[
        str | None,
        PlainValidator(_code),
        WithJsonSchema({}),
        Field(description="The provider's error code"),
    ] = None
    timestamp: Annotated[
        Timestamp | None,
        WrapValidator(_time_or_none),
        WithJsonSchema({}),
        Field(description="When it happened; now by default, and if it cannot be read"),
    ] = None


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
        raw = json_of(request)
        payload = validate(raw, model, default_region=request.default_region)
        status = channel.receipt_status(payload.status)
        is_unknown = status is Status.UNKNOWN
        receipt = IncomingReceipt(
            channel=channel,
            provider=provider,
            provider_message_id=payload.provider_message_id,
            key=payload.status if is_unknown else status,
            status=status,
            error_code=payload.error_code or (payload.status if is_unknown else None),
            error_detail=payload.status if is_unknown and payload.error_code else None,
            occurred_at=min(payload.timestamp or request.received_at, request.received_at),
            raw=storable(raw),
        )
        content = WebhookContent(receipts=[receipt])
        if channel is Channel.EMAIL and _is_hard_bounce(payload):
            content.bounces.append(Bounce(receipt, _recipient_of(raw, channel, request)))
        return content

    return parse


def _is_hard_bounce(payload: ReceiptPayload) -> bool:
    """Return whether a mailbox does not exist; an enhanced status code of 4.x.x is a temporary failure."""
    return letters_of(payload.status) in _HARD_BOUNCES and not (payload.error_code or "").startswith("4")


def _recipient_of(raw: dict[str, object], channel: Channel, request: WebhookRequest) -> str | None:
    """Return the key of the recipient's address, if the receipt has one."""
    for value in (raw.get(name) for name in _RECIPIENTS):
        if isinstance(value, str):
            try:
                return channel.parse_address(value, default_region=request.default_region).key
            except InvalidAddressError:
                continue
    return None


def respond_to_message(content: WebhookContent) -> Received:
    return Received(id=content.messages[0].message.id, status=Status.RECEIVED)


def respond_to_receipt(content: WebhookContent) -> Received:
    receipt = content.receipts[0]
    return Received(id=receipt_id(receipt), status=receipt.status)
