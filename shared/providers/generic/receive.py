"""The generic providers' webhooks, which differ only in the addresses and the name of the id field.

Providers add fields without notice, and cannot be asked to change their payload, so unknown fields are
ignored.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import to_json

from shared.addresses import Address, InvalidAddressError, withheld_sender
from shared.channels import Channel, MessageType
from shared.events import receipt_id
from shared.ids import inbound_message_id
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers.fields import ReadText, ReadTime, ReadUrls, members_of
from shared.providers.forms import ROOM_FOR_BODY, ROOM_FOR_FIELDS, Form, cut_to, fit_form
from shared.providers.generic.signature import HEADER, check_headers
from shared.providers.webhooks import (
    InvalidWebhookError,
    SignatureScheme,
    WebhookContent,
    WebhookRequest,
    parse_model,
)
from shared.status import Status
from shared.suppressions import change_by_bounce
from shared.text import letters_of, single_line
from shared.times import read_time
from shared.validation import MAX_SUBJECT, Fault, ProviderId

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

_COMPLAINTS = {"complaint", "complained", "spamreport", "spamcomplaint"}
"""The words for an e-mail that its recipient has reported as spam."""

_RECIPIENTS = ("to", "email", "recipient")
"""The fields in which a receipt may name the recipient."""

_EARLIEST_YEAR = 2000
"""Some systems write the year 1 or 1970 if they know no time."""

Parse = Callable[[WebhookRequest], WebhookContent]


def documented(example: dict[str, JsonValue]) -> ConfigDict:
    """Return the configuration of a model, with an example."""
    examples: JsonValue = [{**example, "timestamp": "2024-11-01T14:00:00Z"}]
    return ConfigDict(strict=True, frozen=True, json_schema_extra={"examples": examples})


class InboundPayload(BaseModel):
    """A message as a generic provider posts it; subclasses narrow the fields that they repeat."""

    from_: Address | None
    to: Address | list[Address] | None
    type: ReadText = ""
    subject: ReadText = ""
    body: ReadText = ""
    attachments: ReadUrls = []
    timestamp: Annotated[ReadTime, Field(description="When it was written; now by default")] = None
    provider_message_id: str | None


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


def _time(value: object) -> datetime | None:
    time = read_time(value)
    return time if time and time.year >= _EARLIEST_YEAR else None


_TEXT_OR_NUMBER = {"type": ["string", "integer"], "minLength": 1}

ReceiptId = Annotated[ProviderId, BeforeValidator(_number_as_text), WithJsonSchema(_TEXT_OR_NUMBER)]


class ReceiptPayload(BaseModel):
    """A delivery receipt as a generic provider posts it."""

    provider_message_id: str
    status: Annotated[
        str,
        BeforeValidator(_number_as_text),
        AfterValidator(_word),
        WithJsonSchema(_TEXT_OR_NUMBER),
        Field(
            description="The provider's status, such as `delivered`; one that is not known to us does not "
            "change the status of the message"
        ),
    ]
    error_code: Annotated[
        str | None,
        PlainValidator(_code),
        WithJsonSchema({}),
        Field(description="The provider's error code"),
    ] = None
    timestamp: Annotated[
        datetime | None,
        PlainValidator(_time),
        WithJsonSchema({}),
        Field(description="When it happened; the time of the request if it is missing or cannot be read"),
    ] = None


class Received(BaseModel):
    """The acknowledgement of a webhook that was stored."""

    id: UUID = Field(description="Our id, which is the same if the provider repeats the webhook")
    status: Status


def message_parser(provider: str, channel: Channel, model: type[InboundPayload]) -> Parse:
    """Return the function that parses a provider's inbound messages."""

    def parse(request: WebhookRequest) -> WebhookContent:
        posted, payload, warnings = parse_model(request, model)
        if not payload.to:
            raise InvalidWebhookError(Fault("to", "is required"))
        raw = _fitting(posted)
        body = cut_to(payload.body, ROOM_FOR_BODY)
        if len(body) < len(payload.body):
            warnings.append(f"body: only the first {len(body)} of {len(payload.body)} characters were kept")
        subject = single_line(payload.subject, limit=MAX_SUBJECT) or None
        if len(" ".join(payload.subject.split())) > MAX_SUBJECT:
            warnings.append(f"subject: only the first {MAX_SUBJECT} characters were kept")
        id_ = payload.provider_message_id or _id_of_request(request)
        content = subject or "", str(posted.get("timestamp")), payload.body, *payload.attachments
        from_ = payload.from_
        if from_ is None:
            written = str(raw.get("from") or "")
            recipients = payload.to if isinstance(payload.to, list) else [payload.to]
            keys = (each.key for each in recipients)
            from_ = withheld_sender(written, str(inbound_message_id(provider, id_, written, *keys, *content)))
        to = members_of(payload.to, from_)
        message = IncomingMessage.of(
            provider=provider,
            provider_message_id=id_,
            from_=from_,
            to=to,
            raw=raw,
            content=(from_.key, ",".join(each.key for each in to), *content),
            type=_type_of(payload, channel, is_group=len(to) > 1),
            subject=subject,
            body=body,
            attachments=payload.attachments,
            timestamp=min(payload.timestamp or request.received_at, request.received_at),
            created_at=request.received_at,
            warnings=warnings,
        )
        return WebhookContent(messages=[message])

    return parse


def _id_of_request(request: WebhookRequest) -> str:
    """Return an id for a message that has none: that of the webhook, or a digest of its body."""
    id_ = single_line(request.headers.get("webhook-id", ""), limit=_MAX_CODE)
    return f"#{id_ or sha256(request.body).hexdigest()}"


def _fitting(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a payload cut to what a stream can hold."""
    if len(to_json(raw)) <= ROOM_FOR_FIELDS:
        return raw
    texts: Form = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in raw.items()
    }
    kept, cut = fit_form(texts, ROOM_FOR_FIELDS)
    return {**kept, "cut": cut}


def _type_of(payload: InboundPayload, channel: Channel, *, is_group: bool) -> MessageType:
    """Return the type of a message, which a provider may name in its own way."""
    if channel is Channel.EMAIL:
        return MessageType.EMAIL
    is_mms = is_group or payload.attachments or payload.type.lower() == "mms"
    return MessageType.MMS if is_mms else MessageType.SMS


def receipt_parser(provider: str, channel: Channel, model: type[ReceiptPayload]) -> Parse:
    """Return the function that parses a provider's delivery receipts."""

    def parse(request: WebhookRequest) -> WebhookContent:
        raw, payload, _ = parse_model(request, model)
        status = channel.receipt_status(payload.status)
        is_unknown = status is Status.UNKNOWN
        is_complaint = letters_of(payload.status) in _COMPLAINTS
        is_bounce = channel is Channel.EMAIL and (is_complaint or _is_hard_bounce(payload))
        recipient = _recipient_of(raw, channel, request) if is_bounce else None
        receipt = IncomingReceipt(
            channel=channel,
            provider=provider,
            provider_message_id=payload.provider_message_id,
            key=" ".join(filter(None, (payload.status if is_unknown else status, _time_in(raw)))),
            status=status,
            is_bounce=is_bounce and recipient is None,
            error_code=payload.error_code or (payload.status if is_unknown else None),
            error_detail=payload.status if is_unknown and payload.error_code else None,
            occurred_at=min(payload.timestamp or request.received_at, request.received_at),
            raw=raw,
        )
        content = WebhookContent(receipts=[receipt])
        if recipient is not None:
            content.suppressions.append(change_by_bounce(receipt, recipient, at=request.received_at))
        return content

    return parse


def _time_in(raw: dict[str, object]) -> str | None:
    """Return the time of a receipt as it was written. Messages with the same id have different receipts."""
    time = raw.get("timestamp")
    return None if time is None else single_line(str(time), limit=_MAX_CODE)


def _is_hard_bounce(payload: ReceiptPayload) -> bool:
    """Return whether a mailbox does not exist; an enhanced status code of 4.x.x is a temporary failure."""
    return letters_of(payload.status) in _HARD_BOUNCES and not (payload.error_code or "").startswith("4")


def _recipient_of(raw: dict[str, object], channel: Channel, request: WebhookRequest) -> str | None:
    """Return the key of the recipient's address, if the receipt has one."""
    for value in (raw.get(name) for name in _RECIPIENTS):
        if isinstance(value, str):
            with suppress(InvalidAddressError):
                return channel.parse_address(value, default_region=request.default_region).key
    return None


def respond_to_message(content: WebhookContent) -> Received:
    return Received(id=content.messages[0].message.id, status=Status.RECEIVED)


def respond_to_receipt(content: WebhookContent) -> Received:
    receipt = content.receipts[0]
    return Received(id=receipt_id(receipt), status=receipt.status)
