"""Twilio's webhooks: messages to our numbers, and status callbacks."""

import hmac
import re
from base64 import b64encode
from hashlib import sha256
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field

from services.gateway.http.body import media_type_of, read_body, require_media_type, validate
from services.gateway.http.errors import Fault, InvalidRequestError, ProblemError
from shared.validation import ErrorCode, Phone, ProviderId, ProviderText
from services.gateway.messages.service import trace_headers
from services.gateway.openapi import Json, problems, takes_raw
from services.gateway.schemas import SmsReceipt, SmsWebhook
from services.gateway.state import state_of
from shared.providers.forms import Form, collected, urlencoded
from services.gateway.webhooks.guard import Check, Delivery, Guard, Refusal
from shared.keywords import Keyword, keyword_of
from shared.lifecycle import Status

_FORM = "application/x-www-form-urlencoded"
_HEADER = "X-Twilio-Signature"
_PROVIDER = "twilio"

_MAX_FORM = 64 * 1024
"""Bytes, of which JSON may make six times as many: a message of NATS holds 1 MiB."""

_MEDIA_COUNT = re.compile(r"[0-9]|10")

_STATUSES = {
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "undelivered": Status.UNDELIVERED,
    "failed": Status.UNDELIVERED,
    "canceled": Status.CANCELED,
}
"""What tells us something; the sender knows already that a message was queued, or sent."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


# --- Signatures ---------------------------------------------------------------------------------------


class TwilioSignatures:
    """What Twilio signs: the URL it was given, and the form; of other bodies, their hash in the URL.

    Args:
        token: the account's auth token.
        public_url: the base of the URLs that Twilio was given.
    """

    def __init__(self, token: str, public_url: str) -> None:
        self._token = token.encode()
        self._bases = _with_and_without_port(public_url.rstrip("/"))

    def __call__(self, delivery: Delivery) -> Refusal | None:
        given = delivery.headers.get(_HEADER.lower(), "").encode()
        if media_type_of(delivery.headers) == _FORM:
            content, is_whole = _signed_form(delivery.body), True
        else:
            content, is_whole = b"", _hash_matches(delivery)
        query = b"?" + delivery.query if delivery.query else b""
        rest = delivery.path.encode() + query + content
        matches = [hmac.compare_digest(self._signature(base + rest), given) for base in self._bases]
        return None if is_whole and any(matches) else Refusal.WRONG_SIGNATURE

    def _signature(self, signed: bytes) -> bytes:
        return b64encode(hmac.digest(self._token, signed, "sha1"))


def _with_and_without_port(url: str) -> list[bytes]:
    """Spell the URL both ways: which one Twilio signs depends on the product."""
    parts = urlsplit(url)
    host = parts.netloc if parts.port is None else parts.netloc.rpartition(":")[0]
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return [f"{parts.scheme}://{netloc}{parts.path}".encode() for netloc in (host, f"{host}:{port}")]


def _signed_form(body: bytes) -> bytes:
    return b"".join(name + value for name, value in sorted(set(urlencoded(body))))


def _hash_matches(delivery: Delivery) -> bool:
    given = next((value for name, value in urlencoded(delivery.query) if name == b"bodySHA256"), b"")
    return hmac.compare_digest(sha256(delivery.body).hexdigest().encode(), given)


# --- Messages and receipts ----------------------------------------------------------------------------


def _number(value: object) -> object:
    # Twilio writes other channels in front of an address, as in whatsapp:+12016661234.
    if isinstance(value, str) and ":" in value:
        raise ValueError("is an address of a channel that is not supported")
    return value


Number = Annotated[Phone, BeforeValidator(_number)]


class TwilioMessage(SmsWebhook):
    provider: ClassVar[str] = _PROVIDER

    from_: Number = Field(alias="From")
    to: Number = Field(alias="To")
    body: ProviderText | None = Field(default=None, alias="Body")
    provider_message_id: ProviderId = Field(alias="MessageSid")
    opt_out_type: str | None = Field(default=None, alias="OptOutType")

    @property
    def keyword(self) -> Keyword | None:
        """What Twilio took the message for, where keywords of one's own are set up there too."""
        return keyword_of(self.opt_out_type or self.body or "")


class TwilioReceipt(SmsReceipt):
    provider: ClassVar[str] = _PROVIDER

    provider_message_id: ProviderId = Field(alias="MessageSid")
    error_code: ErrorCode | None = Field(default=None, alias="ErrorCode")


def read_form(body: bytes) -> Form:
    """Read what Twilio posted.

    Raises:
        ProblemError: 400, it is not UTF-8.
    """
    try:
        return collected((name.decode(), value.decode()) for name, value in urlencoded(body))
    except UnicodeDecodeError as exc:
        raise ProblemError(400, "The form is not UTF-8") from exc


def message_of(form: Form, *, default_region: str) -> TwilioMessage:
    """Make the message of a form.

    Raises:
        InvalidRequestError: 422, with the fields at fault.
    """
    media = [form[name] for number in range(_media_count(form)) if (name := f"MediaUrl{number}") in form]
    content: dict[str, object] = {
        **_picked(form, "From", "To", "Body", "MessageSid", "OptOutType"),
        "type": "mms" if _media_count(form) else "sms",
        "attachments": media,
    }
    return validate(content, TwilioMessage, default_region=default_region)


def receipt_of(form: Form, *, default_region: str) -> TwilioReceipt | None:
    """Make the receipt of a form; None if it says nothing that is not known.

    Raises:
        InvalidRequestError: 422, with the fields at fault.
    """
    word = form.get("MessageStatus")
    if not isinstance(word, str):
        raise InvalidRequestError(Fault("MessageStatus", "is required, once"))
    content = {
        **_picked(form, "MessageSid"),
        "ErrorCode": form.get("ErrorCode") or None,
        "status": _STATUSES.get(word, Status.SENT),
    }
    receipt = validate(content, TwilioReceipt, default_region=default_region)
    return receipt if word in _STATUSES else None


def _picked(form: Form, *names: str) -> Form:
    return {name: form[name] for name in names if name in form}


def _media_count(form: Form) -> int:
    text = form.get("NumMedia", "0")
    if isinstance(text, str) and _MEDIA_COUNT.fullmatch(text):
        return int(text)
    raise InvalidRequestError(Fault("NumMedia", "is not a number up to 10"))


# --- Routes -------------------------------------------------------------------------------------------

_MESSAGE_FORM: Json = {
    "type": "object",
    "required": ["MessageSid", "From", "To", "Body"],
    "properties": {
        "MessageSid": {"type": "string", "minLength": 1},
        "From": {"type": "string", "minLength": 1, "examples": ["+18045551234"]},
        "To": {"type": "string", "minLength": 1, "examples": ["+12016661234"]},
        "Body": {"type": "string"},
        "OptOutType": {"type": "string", "enum": ["STOP", "START", "HELP"]},
        "NumMedia": {"type": "string", "description": "How many `MediaUrl0`, `MediaUrl1`, … there are"},
    },
}
_STATUS_FORM: Json = {
    "type": "object",
    "required": ["MessageSid", "MessageStatus"],
    "properties": {
        "MessageSid": {"type": "string", "minLength": 1},
        "MessageStatus": {"type": "string", "examples": [*_STATUSES]},
        "ErrorCode": {"type": "string", "examples": ["30003"]},
    },
}
_PROBLEMS = problems(400, 403, 413, 415, 422, 503)


def router(check: Check | None, *, is_open: bool) -> APIRouter:
    guard = Guard(_PROVIDER, _HEADER, check, is_open)
    router = APIRouter(tags=["webhooks"], dependencies=guard.dependencies(limit=_MAX_FORM))
    router.add_api_route(
        "/api/webhooks/twilio/messages",
        _receive,
        methods=["POST"],
        summary="An SMS or MMS, as Twilio posts it",
        response_class=Response,
        responses={200: {"description": "Taken", "content": {"text/xml": {}}}, **_PROBLEMS},
        openapi_extra=takes_raw(_FORM, _MESSAGE_FORM),
    )
    router.add_api_route(
        "/api/webhooks/twilio/status",
        _report,
        methods=["POST"],
        summary="What became of an SMS or MMS, as Twilio posts it",
        status_code=204,
        response_class=Response,
        responses=_PROBLEMS,
        openapi_extra=takes_raw(_FORM, _STATUS_FORM),
    )
    return router


async def _receive(request: Request) -> Response:
    state = state_of(request)
    form = await _form(request)
    message = message_of(form, default_region=state.default_region)
    await state.intake.receive(message, form, trace_headers(request.headers))
    return Response("<Response/>", media_type="text/xml")


async def _report(request: Request) -> Response:
    state = state_of(request)
    form = await _form(request)
    receipt = receipt_of(form, default_region=state.default_region)
    if receipt is not None:
        await state.intake.report(receipt, form, trace_headers(request.headers))
    return Response(status_code=204)


async def _form(request: Request) -> Form:
    require_media_type(request, _FORM)
    return read_form(await read_body(request, limit=_MAX_FORM))
