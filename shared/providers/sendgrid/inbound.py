"""SendGrid's webhooks: mail to our addresses (Inbound Parse), and what became of ours (Event Webhook)."""

import asyncio
import binascii
import codecs
import json
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from services.gateway.http.body import MAX_BODY, read_body, read_json, require_media_type, validate
from services.gateway.http.errors import Fault, InvalidRequestError, ProblemError
from shared.validation import MAX_SUBJECT, Email, ProviderId, on_one_line, readable
from services.gateway.messages.service import trace_headers
from services.gateway.openapi import Json, problems, takes_raw
from services.gateway.schemas import EmailReceipt, EmailWebhook
from services.gateway.state import state_of
from services.gateway.views import View, answer
from shared.providers.forms import (
    Form,
    MalformedFormError,
    Multipart,
    collected,
    cut_to,
    fitted,
    multipart,
)
from services.gateway.webhooks.guard import Check, Delivery, Guard, Refusal
from shared.addresses import InvalidAddressError, parse_address
from shared.channels import Channel
from shared.events import MAX_SUPPRESSION_DETAIL, SuppressionChange, SuppressionSource, SuppressionState
from shared.ids import MessageId
from shared.observability.metrics import WEBHOOKS_REFUSED
from shared.lifecycle import Status

_log = structlog.get_logger()

_PROVIDER = "sendgrid"
_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
_TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"
_MULTIPART = "multipart/form-data"

_TOLERANCE = 300
"""Seconds between a signature and its check."""

_MAX_MAIL = 30 * 1024 * 1024
_MAX_EVENTS = 1024 * 1024
"""Bytes; SendGrid collects up to 768 KB."""

# Of the 1 MiB that a message of NATS holds, as JSON.
_ROOM_FOR_BODY = 256 * 1024
_ROOM_FOR_FIELDS = 384 * 1024

_MAX_FILES_LISTED = 100
_MAX_RECIPIENTS = 100
_MAX_DETAIL = 500
_MAX_CODE = 64
_MAX_LABEL = 100


# --- Signatures ---------------------------------------------------------------------------------------


class SendgridKey:
    """The public half of the key that SendGrid signs webhooks with: ECDSA over P-256 with SHA-256."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key as SendGrid shows it: base64 of its SubjectPublicKeyInfo.

        Raises:
            ValueError: it is none; the message does not repeat it.
        """
        try:
            key = load_der_public_key(b64decode(text, validate=True))
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return cls(key)
        raise ValueError("must be a public key on the curve P-256, in base64")

    def __call__(self, delivery: Delivery) -> Refusal | None:
        timestamp = delivery.headers.get(_TIMESTAMP_HEADER.lower(), "")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > _TOLERANCE:
            return Refusal.EXPIRED
        try:
            signature = _exact_base64(delivery.headers.get(_HEADER.lower(), ""))
            self._key.verify(signature, timestamp.encode() + delivery.body, ec.ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            return Refusal.WRONG_SIGNATURE
        return None


def _exact_base64(text: str) -> bytes:
    """Decode the one spelling of some bytes.

    Raises:
        ValueError: it is none, or another one.
    """
    value = b64decode(text, validate=True)
    if b64encode(value).decode() != text:
        raise binascii.Error("has bits that mean nothing")
    return value


# --- Mail ---------------------------------------------------------------------------------------------


class SendgridMessage(EmailWebhook):
    provider: ClassVar[str] = _PROVIDER

    provider_message_id: ProviderId = Field(alias="id")
    mail_id: str | None = None

    @property
    def email_id(self) -> str | None:
        return self.mail_id


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that came in.

    Attributes:
        messages: one for each address of ours that it was delivered to.
        raw: what SendGrid posted, without the contents of files and cut to what a stream takes.
    """

    messages: list[SendgridMessage]
    raw: Json


class _Envelope(BaseModel):
    to: list[str] = Field(min_length=1, max_length=_MAX_RECIPIENTS)
    from_: str | None = Field(default=None, alias="from")


_charsets = TypeAdapter(dict[str, str])

_PYTHONS_OWN = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Codecs that are no character sets of mail."""

_AS_THE_WEB_READS_THEM = {"ascii": "cp1252", "iso8859-1": "cp1252"}
"""Who names one of these more often than not writes the larger one (WHATWG Encoding Standard)."""

_MESSAGE_ID = re.compile(r"(?im)^message-id:[ \t]*(?:\r?\n[ \t]+)?(\S+)")
_IN_BRACKETS = re.compile(r"<([^<>]*)>\s*$")


def mail_of(form: Multipart, *, default_region: str) -> Mail:
    """Make the messages of a mail.

    Its body is the HTML, as that of mails we send may be; the text if there is none. Files are named in `raw`
    only: attachments are URLs, and these have none.

    Raises:
        InvalidRequestError: 422, with the fields at fault.
    """
    fields = _decoded(form)
    envelope = _envelope(_one(fields, "envelope"))
    content = {
        "from": _sender(_one(fields, "from"), envelope),
        "subject": on_one_line(_one(fields, "subject") or "", limit=MAX_SUBJECT) or None,
        "body": _body(_one(fields, "html"), _one(fields, "text")),
        "mail_id": _mail_id(fields),
    }
    messages = [
        validate(
            {**content, "to": recipient, "id": _id(fields, envelope.from_ or "", recipient)},
            SendgridMessage,
            default_region=default_region,
        )
        for recipient in {address.casefold(): address for address in envelope.to}.values()
    ]
    return Mail(messages, _raw(fields, form))


def _decoded(form: Multipart) -> Form:
    given = next((value for name, value in form.fields if name == "charsets"), b"{}")
    try:
        charsets = _charsets.validate_json(given)
    except ValidationError:
        charsets = {}
    return collected((name, _decode(value, charsets.get(name, "utf-8"))) for name, value in form.fields)


def _decode(value: bytes, charset: str) -> str:
    try:
        text = value.decode(_codec(charset), errors="replace")
    except (LookupError, ValueError):
        text = value.decode(errors="replace")
    # UTF-7 can spell lone surrogates.
    return text.encode(errors="replace").decode()


def _codec(charset: str) -> str:
    name = codecs.lookup(charset).name
    return "utf-8" if name in _PYTHONS_OWN else _AS_THE_WEB_READS_THEM.get(name, name)


def _one(fields: Form, name: str) -> str | None:
    value = fields.get(name)
    if isinstance(value, list):
        raise InvalidRequestError(Fault(name, "occurs more than once"))
    return value


def _envelope(text: str | None) -> _Envelope:
    try:
        return _Envelope.model_validate_json(text or "")
    except ValidationError as exc:
        raise InvalidRequestError(Fault("envelope", "does not say whom the mail was delivered to")) from exc


def _sender(header: str | None, envelope: _Envelope) -> str:
    """Choose who wrote the mail: its From, or whoever delivered it where that is no address."""
    if header is None:
        raise InvalidRequestError(Fault("from", "is required"))
    in_brackets = _IN_BRACKETS.search(header)
    candidates = (in_brackets[1] if in_brackets else header, envelope.from_ or "")
    return next(filter(_is_address, candidates), header)


def _is_address(text: str) -> bool:
    try:
        parse_address(text, Channel.EMAIL, default_region="")
    except InvalidAddressError:
        return False
    return True


def _body(html: str | None, text: str | None) -> str:
    versions = [version for version in (html, text) if version and version.strip()]
    readable_ones = (readable(version[:_ROOM_FOR_BODY]) for version in versions)
    cut = [cut_to(version, _ROOM_FOR_BODY) for version in readable_ones]
    whole = (part for part, version in zip(cut, versions, strict=True) if len(part) == len(version))
    return next(whole, next(iter(cut), ""))


def _id(fields: Form, sender: str, recipient: str) -> str:
    """Name a mail as it was delivered to one of us: the same each time SendGrid posts it.

    Two senders may well use one Message-ID, so that alone does not do.
    """
    mail_id = _mail_id(fields)
    # Without one there still are the headers, which say when and how the mail came.
    what = mail_id or _one(fields, "headers") or to_json(fields).decode()
    digest = sha256(json.dumps([what, sender, recipient.casefold()]).encode()).hexdigest()[:32]
    return f"{on_one_line(mail_id or '', limit=_MAX_LABEL)}#{digest}"


def _mail_id(fields: Form) -> str | None:
    found = _MESSAGE_ID.search(_one(fields, "headers") or "")
    return found[1] if found else None


def _raw(fields: Form, form: Multipart) -> Json:
    kept, cut = fitted(fields, _ROOM_FOR_FIELDS)
    files = [
        asdict(file) | {"name": _file_name(file.name), "type": on_one_line(file.type, limit=_MAX_LABEL)}
        for file in form.files[:_MAX_FILES_LISTED]
    ]
    return {"fields": kept, "files": files, "cut": cut}


def _file_name(text: str) -> str:
    return on_one_line(re.split(r"[/\\]", text)[-1], limit=_MAX_LABEL)


# --- Events -------------------------------------------------------------------------------------------

_STATUSES = {
    "delivered": Status.DELIVERED,
    "bounce": Status.UNDELIVERED,
    "dropped": Status.UNDELIVERED,
}
"""Events that tell what became of a message; of the others there is nothing to keep."""

_SUPPRESSION = {
    "bounce": SuppressionSource.BOUNCE,
    "spamreport": SuppressionSource.SPAM_REPORT,
    "unsubscribe": SuppressionSource.UNSUBSCRIBE,
    "group_unsubscribe": SuppressionSource.UNSUBSCRIBE,
    "group_resubscribe": SuppressionSource.RESUBSCRIBE,
}
"""Events that tell what a recipient wants, or that there is none."""

_SUPPRESSION_BY_DROP = {
    "bounced address": SuppressionSource.BOUNCE,
    "spam reporting address": SuppressionSource.SPAM_REPORT,
    "unsubscribed address": SuppressionSource.UNSUBSCRIBE,
}
"""Reasons for dropping a mail: SendGrid has known of it for longer than we do."""


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a number of seconds")  # noqa: TRY004 - pydantic collects ValueErrors
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError) as exc:
        raise ValueError("is not a time that exists") from exc


def _own_id(value: object) -> MessageId | None:
    """Read our id out of `custom_args`, where others of the same account may put what they like."""
    try:
        return MessageId(UUID(str(value)))
    except ValueError:
        return None


class SendgridReceipt(EmailReceipt):
    provider: ClassVar[str] = _PROVIDER

    provider_message_id: ProviderId = Field(alias="sg_message_id")
    timestamp: Annotated[datetime | None, PlainValidator(_moment)] = None
    detail: str | None = None
    own_id: Annotated[MessageId | None, PlainValidator(_own_id)] = None
    event_id: ProviderId | None = Field(default=None, alias="sg_event_id")

    @property
    def message_id(self) -> MessageId | None:
        return self.own_id

    @property
    def error_detail(self) -> str | None:
        return self.detail

    @property
    def key(self) -> str:
        return self.event_id or self.status


def receipt_of(event: Mapping[str, Any], *, default_region: str) -> SendgridReceipt | None:
    """Make the receipt of an event; None if it tells nothing that is kept.

    Raises:
        InvalidRequestError: it is no event that could be understood.
    """
    if event["event"] not in _STATUSES:
        return None
    status = _STATUSES[event["event"]]
    content = {
        # Late bounces may come without it.
        "sg_message_id": _sent_id(event.get("sg_message_id") or event.get("message_id")),
        "sg_event_id": event.get("sg_event_id"),
        "own_id": event.get("message_id"),
        "timestamp": event.get("timestamp"),
        "status": status,
    }
    if status is Status.UNDELIVERED:
        content["error_code"] = on_one_line(str(event.get("status") or event["event"]), limit=_MAX_CODE)
        content["detail"] = on_one_line(str(event.get("reason") or ""), limit=_MAX_DETAIL) or None
    return validate(content, SendgridReceipt, default_region=default_region)


def _sent_id(value: object) -> object:
    """Take from an event's id the part that the answer to our request had."""
    return value.partition(".")[0] if isinstance(value, str) else value


class _Recipient(BaseModel):
    email: Email
    timestamp: Annotated[datetime | None, PlainValidator(_moment)] = None


def change_of(event: Mapping[str, Any], *, now: datetime, default_region: str) -> SuppressionChange | None:
    """Make the change of consent that an event tells of; None if it tells of none.

    It is about all addresses of ours, as SendGrid's own lists are.

    Raises:
        InvalidRequestError: it does not say whose.
    """
    source = _source_of(event)
    if source is None:
        return None
    recipient = validate(event, _Recipient, default_region=default_region)
    is_back = source is SuppressionSource.RESUBSCRIBE
    return SuppressionChange(
        channel=Channel.EMAIL,
        theirs=recipient.email.key,
        state=SuppressionState.OPTED_IN if is_back else SuppressionState.OPTED_OUT,
        source=source,
        detail=on_one_line(str(event.get("reason") or event["event"]), limit=MAX_SUPPRESSION_DETAIL),
        occurred_at=min(recipient.timestamp or now, now),
    )


def _source_of(event: Mapping[str, Any]) -> SuppressionSource | None:
    word = event["event"]
    if word == "bounce" and event.get("type") == "blocked":
        return None  # for now, by the recipient's server; the mailbox is there
    if word == "dropped":
        return _SUPPRESSION_BY_DROP.get(str(event.get("reason")).casefold())
    return _SUPPRESSION.get(word)


# --- Routes -------------------------------------------------------------------------------------------

_MAIL_FORM: Json = {
    "type": "object",
    "required": ["from", "envelope"],
    "properties": {
        "from": {"type": "string", "examples": ["Ann <ann@example.com>"]},
        "envelope": {
            "type": "string",
            "description": "JSON; `to` says whom it was delivered to",
            "examples": ['{"to": ["user@usehatchapp.com"], "from": "ann@example.com"}'],
        },
        "subject": {"type": "string"},
        "html": {"type": "string"},
        "text": {"type": "string"},
        "headers": {"type": "string", "description": "With the Message-ID"},
        "charsets": {"type": "string", "description": "JSON; what each field is written in, if not in UTF-8"},
    },
}
_EVENTS: Json = {
    "type": "array",
    "items": {},
    "examples": [
        [
            {
                "event": "delivered",
                "timestamp": 1730469600,
                "sg_event_id": "event-1",
                "sg_message_id": "message-1.recvd-1",
                "message_id": "0198c0de-0000-7000-8000-000000000001",
            }
        ]
    ],
}
_PROBLEMS = problems(400, 403, 413, 415, 422, 503)


class MailTaken(View):
    """A mail that is safe with us."""

    ids: list[UUID] = Field(description="Of its messages, one for each address it was delivered to")


class EventsTaken(View):
    """Events that are safe with us."""

    receipts: int = Field(description="That were kept")
    suppressions: int = Field(description="That tell who wants nothing more, or something again")
    invalid: int = Field(description="That could not be understood, and will not be if they are repeated")


def router(check: Check | None, *, is_open: bool) -> APIRouter:
    guard = Guard(_PROVIDER, _HEADER, check, is_open)
    router = APIRouter(tags=["webhooks"])
    router.add_api_route(
        "/api/webhooks/sendgrid/inbound",
        _receive,
        methods=["POST"],
        summary="A mail, as SendGrid's Inbound Parse posts it",
        response_model=MailTaken,
        responses=_PROBLEMS,
        dependencies=guard.dependencies(limit=_MAX_MAIL),
        openapi_extra=takes_raw(_MULTIPART, _MAIL_FORM),
    )
    router.add_api_route(
        "/api/webhooks/sendgrid/events",
        _report,
        methods=["POST"],
        summary="What became of mails, as SendGrid's Event Webhook posts it",
        response_model=EventsTaken,
        responses=_PROBLEMS,
        dependencies=guard.dependencies(limit=_MAX_EVENTS),
        openapi_extra=takes_raw("application/json", _EVENTS),
    )
    return router


async def _receive(request: Request) -> Response:
    state = state_of(request)
    require_media_type(request, _MULTIPART)
    body = await read_body(request, limit=_MAX_MAIL)
    mail = await asyncio.to_thread(
        _read_mail, body, request.headers["content-type"], default_region=state.default_region
    )
    trace = trace_headers(request.headers)
    messages = await asyncio.gather(
        *(state.intake.receive(message, mail.raw, trace) for message in mail.messages)
    )
    return answer(MailTaken(ids=[message.id for message in messages]))


def _read_mail(body: bytes, content_type: str, *, default_region: str) -> Mail:
    try:
        form = multipart(body, content_type)
    except MalformedFormError as exc:
        raise ProblemError(400, str(exc)) from exc
    return mail_of(form, default_region=default_region)


async def _report(request: Request) -> Response:
    state = state_of(request)
    events = await read_json(request, limit=_MAX_EVENTS)
    if not isinstance(events, list):
        raise InvalidRequestError(Fault("body", "has to be a JSON array"))
    trace = trace_headers(request.headers)
    found = _sorted_out(events, now=state.clock(), default_region=state.default_region)
    await asyncio.gather(
        *(state.intake.report(receipt, raw, trace) for receipt, raw in found.receipts),
        *(state.suppressions.record(change) for change in found.changes),
    )
    return answer(
        EventsTaken(receipts=len(found.receipts), suppressions=len(found.changes), invalid=found.invalid)
    )


@dataclass(slots=True)
class _Found:
    """What events tell: receipts, each with its event; changes of consent; and how many are not valid."""

    receipts: list[tuple[SendgridReceipt, dict[str, Any]]] = field(default_factory=list)
    changes: list[SuppressionChange] = field(default_factory=list)
    invalid: int = 0


def _sorted_out(events: list[Any], *, now: datetime, default_region: str) -> _Found:
    found = _Found()
    for event in events:
        try:
            _require_event(event)
            if change := change_of(event, now=now, default_region=default_region):
                found.changes.append(change)
            if receipt := receipt_of(event, default_region=default_region):
                found.receipts.append((receipt, event))
        except InvalidRequestError as exc:
            found.invalid += 1
            WEBHOOKS_REFUSED.labels(_PROVIDER, "invalid_event").inc()
            _log.warning("event_refused", provider=_PROVIDER, fields=[fault.field for fault in exc.faults])
    return found


def _require_event(event: object) -> None:
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise InvalidRequestError(Fault("event", "is required"))
    try:
        size = len(to_json(event))
    except PydanticSerializationError as exc:
        raise InvalidRequestError(Fault("event", "contains lone surrogates")) from exc
    if size > MAX_BODY:
        raise InvalidRequestError(Fault("event", "is too large"))
