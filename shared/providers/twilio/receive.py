"""Twilio's webhooks: messages to our numbers, and status callbacks."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shared.addresses import withheld_sender
from shared.channels import Channel, MessageType
from shared.keywords import keyword_of
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers.fields import ReadPhone, ReadPhones, ReadText, ReadUrls, members_of
from shared.providers.forms import Form, collect, parse_urlencoded
from shared.providers.twilio import codes
from shared.providers.twilio.signature import FORM
from shared.providers.webhooks import (
    InvalidWebhookError,
    UnreadableWebhookError,
    Webhook,
    WebhookContent,
    WebhookRequest,
    parse_own_id,
    validate,
)
from shared.status import Status
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from shared.text import letters_of, single_line
from shared.validation import ErrorCode, Fault, Phone

NAME = "twilio"

_MAX_FORM = 64 * 1024
"""Bytes, which may become six times as many in JSON: a NATS message holds 1 MiB."""

_OTHER_RECIPIENT = re.compile(r"OtherRecipients[0-9]{0,2}")
"""The further recipients of a message to a group, in fields that Twilio does not document."""

_MAX_WORD = 64

_MEDIA_COUNT = re.compile(r"[0-9]|10")

# Twilio signs names and values one after another, without separators. Moving text from the beginning of one
# to the end of another does not change the signature, so each field has to have the form that Twilio uses.
_FIELD_NAME = re.compile(r"[A-Za-z]+[0-9]{0,2}")
_MESSAGE_SID = r"^(SM|MM)[0-9a-fA-F]{32}$"
_SERVICE_SID = re.compile(r"MG[0-9a-fA-F]{32}")
_ACCOUNT_SID = r"^AC[0-9a-fA-F]{32}$"

_STATUSES = {
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "undelivered": Status.UNDELIVERED,
    "failed": Status.UNDELIVERED,
    "canceled": Status.CANCELED,
    "cancelled": Status.CANCELED,
}
"""The outcomes of a message."""

_ACCEPTED = {"accepted", "scheduled", "queued", "sending", "sent", "partiallydelivered"}
"""The statuses that show that Twilio has the message, which the sender knows unless it got no response."""


MessageSid = Annotated[str, Field(alias="MessageSid", pattern=_MESSAGE_SID)]
AccountSid = Annotated[str, Field(alias="AccountSid", pattern=_ACCOUNT_SID)]


class TwilioMessage(BaseModel):
    """An SMS or MMS; without a body it has media."""

    model_config = ConfigDict(strict=True)

    from_: ReadPhone = Field(alias="From")
    to: ReadPhone = Field(alias="To")
    others: ReadPhones = []
    body: ReadText | None = Field(default=None, alias="Body")
    message_sid: MessageSid
    account_sid: AccountSid
    opt_out_type: str | None = Field(default=None, alias="OptOutType")
    media: ReadUrls = []


class TwilioReceipt(BaseModel):
    model_config = ConfigDict(strict=True)

    message_sid: MessageSid
    account_sid: AccountSid
    error_code: ErrorCode | None = Field(default=None, alias="ErrorCode")


class _Recipient(BaseModel):
    to: Phone = Field(alias="To")


class _OptOut(_Recipient):
    from_: Phone = Field(alias="From")


def parse_message(request: WebhookRequest) -> WebhookContent:
    form = _form_of(request)
    count = _media_count(form)
    media = [form[name] for number in range(count) if (name := f"MediaUrl{number}") in form]
    warnings: list[str] = []
    fields = validate(
        {**form, "others": _others(form), "media": media},
        TwilioMessage,
        default_region=request.default_region,
        warnings=warnings,
    )
    if fields.body is None and not media:
        raise InvalidWebhookError(Fault("Body", "is missing, and there is no media"))
    if fields.to is None:
        raise InvalidWebhookError(Fault("To", "is required"))
    from_ = fields.from_ or withheld_sender(str(form.get("From") or ""), fields.message_sid)
    to = members_of([fields.to, *fields.others], from_)
    message = IncomingMessage.of(
        provider=NAME,
        provider_message_id=fields.message_sid,
        from_=from_,
        to=to,
        raw=form,
        # Twilio names the keyword that it recognised, even if the account has custom keywords.
        keyword=keyword_of(fields.opt_out_type or ""),
        opt_out_group=opt_out_group_of(form.get("MessagingServiceSid")),
        type=MessageType.MMS if count or len(to) > 1 else MessageType.SMS,
        body=fields.body or "",
        attachments=fields.media,
        timestamp=request.received_at,
        created_at=request.received_at,
        warnings=warnings,
    )
    return WebhookContent(messages=[message])


def _others(form: Form) -> list[str]:
    """Return the recipients of a message to a group other than our number."""
    names = sorted(filter(_OTHER_RECIPIENT.fullmatch, form), key=lambda name: (len(name), name))
    values = (form[name] for name in names)
    return [other for value in values for other in (value if isinstance(value, list) else [value])]


def _query_of(request: WebhookRequest) -> Mapping[str, str]:
    pairs = parse_urlencoded(request.query)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs}


def parse_receipt(request: WebhookRequest) -> WebhookContent:
    form = _form_of(request)
    word = form.get("MessageStatus")
    if not isinstance(word, str) or not word.strip():
        raise InvalidWebhookError(Fault("MessageStatus", "is required, once"))
    fields = validate(
        {**form, "ErrorCode": form.get("ErrorCode") or None},
        TwilioReceipt,
        default_region=request.default_region,
    )
    content = WebhookContent()
    message_id = parse_own_id(_query_of(request).get("message_id"))
    if status := _status_of(letters_of(word), is_ours=message_id is not None):
        unknown = single_line(word, limit=_MAX_WORD) if status is Status.UNKNOWN else None
        receipt = IncomingReceipt(
            channel=Channel.SMS,
            provider=NAME,
            provider_message_id=fields.message_sid,
            message_id=message_id,
            key=unknown or status,
            status=status,
            error_code=fields.error_code or unknown,
            error_detail=unknown if fields.error_code else None,
            occurred_at=request.received_at,
            raw=form,
        )
        content.receipts.append(receipt)
    if fields.error_code == str(codes.OPTED_OUT):
        try:
            content.suppressions.append(_opt_out(form, fields.message_sid, request))
        except InvalidWebhookError as exc:
            # The receipt is still valid.
            content.invalid.append(exc.faults)
    return content


def _status_of(word: str, *, is_ours: bool) -> Status | None:
    """Return the status that a word represents, or None if it is not a report on one of our messages.

    An acceptance counts only with our id: it resolves an attempt without a response, whose SID is not known.
    """
    if word in _ACCEPTED:
        return Status.SENT if is_ours else None
    return _STATUSES.get(word, Status.UNKNOWN)


def opt_out_group_of(service_sid: object) -> str | None:
    """Return the opt-out group of a Messaging Service: Twilio applies opt-outs to all its numbers."""
    is_sid = isinstance(service_sid, str) and _SERVICE_SID.fullmatch(service_sid)
    return f"{NAME}:{service_sid}" if is_sid else None


def _opt_out(form: Form, message_sid: str, request: WebhookRequest) -> SuppressionChange:
    region = request.default_region
    # A Messaging Service that has not chosen a sender yet reports none.
    ours = opt_out_group_of(form.get("MessagingServiceSid"))
    return SuppressionChange(
        channel=Channel.SMS,
        ours=ours or validate(form, _OptOut, default_region=region).from_.key,
        theirs=validate(form, _Recipient, default_region=region).to.key,
        state=SuppressionState.OPTED_OUT,
        source=SuppressionSource.PROVIDER,
        detail=NAME,
        cause=f"{NAME} {message_sid}",
        occurred_at=request.received_at,
    )


def _form_of(request: WebhookRequest) -> Form:
    try:
        form = collect((name.decode(), value.decode()) for name, value in parse_urlencoded(request.body))
    except UnicodeDecodeError as exc:
        raise UnreadableWebhookError("The form is not UTF-8") from exc
    if not all(map(_FIELD_NAME.fullmatch, form)):
        raise InvalidWebhookError(Fault("body", "has a field whose name Twilio does not use"))
    return form


def _media_count(form: Form) -> int:
    text = form.get("NumMedia")
    if isinstance(text, str) and _MEDIA_COUNT.fullmatch(text):
        return int(text)
    raise InvalidWebhookError(Fault("NumMedia", "must be a number up to 10"))


_MESSAGE_FORM: Mapping[str, Any] = {
    "type": "object",
    "required": ["MessageSid", "AccountSid", "From", "To", "Body", "NumMedia"],
    "properties": {
        "MessageSid": {"type": "string", "pattern": _MESSAGE_SID},
        "AccountSid": {"type": "string", "pattern": _ACCOUNT_SID},
        "From": {"type": "string", "minLength": 1, "examples": ["+18045551234"]},
        "To": {"type": "string", "minLength": 1, "examples": ["+12016661234"]},
        "Body": {"type": "string"},
        "OptOutType": {"type": "string", "enum": ["STOP", "START", "HELP"]},
        "NumMedia": {"type": "string", "description": "The number of fields `MediaUrl0`, `MediaUrl1`, …"},
    },
}
_STATUS_FORM: Mapping[str, Any] = {
    "type": "object",
    "required": ["MessageSid", "AccountSid", "MessageStatus"],
    "properties": {
        "MessageSid": {"type": "string", "pattern": _MESSAGE_SID},
        "AccountSid": {"type": "string", "pattern": _ACCOUNT_SID},
        "MessageStatus": {"type": "string", "examples": [*_STATUSES]},
        "ErrorCode": {"type": "string", "examples": ["30003"]},
    },
}

WEBHOOKS = (
    Webhook(
        name="receive_twilio_message",
        path="twilio/messages",
        summary="Receive an SMS or MMS from Twilio",
        media_type=FORM,
        body=_MESSAGE_FORM,
        parse=parse_message,
        respond=lambda _: "<Response/>",
        response="text/xml",
        max_size=_MAX_FORM,
    ),
    Webhook(
        name="receive_twilio_status",
        path="twilio/status",
        summary="Receive a status callback from Twilio",
        media_type=FORM,
        body=_STATUS_FORM,
        parse=parse_receipt,
        max_size=_MAX_FORM,
    ),
)
