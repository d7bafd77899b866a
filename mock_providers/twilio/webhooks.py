"""What Twilio sends: status callbacks and inbound messages, with its signature."""

import hmac
import logging
import mimetypes
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import uuid4

import httpx
from pydantic import JsonValue

from mock_providers.backend import Backend
from mock_providers.behaviour import Behaviour
from mock_providers.ledger import AcceptedMessage, Progress
from mock_providers.twilio.message import API_VERSION, first, form_of, sender_of
from mock_providers.twilio.segments import segment_count
from mock_providers.webhooks import GatewayUnreachableError, NotConnectedError, Payload

INBOUND_PATH = "/api/webhooks/twilio/messages"
COURSES: dict[str, tuple[str, ...]] = {
    "queued": (),
    "sent": ("sent",),
    "delivered": ("sent", "delivered"),
    "undelivered": ("sent", "undelivered"),
    "failed": ("failed",),
}
"""What is reported of a message, for each outcome. The status at its creation isn't."""

_FAILURES = {"undelivered": 30003, "failed": 30008}
_PLACE = ("City", "State", "Zip", "Country")

Params = list[tuple[str, str]]

logger = logging.getLogger(__name__)


def sign(token: str, url: str, params: Iterable[tuple[str, str]]) -> str:
    """The `X-Twilio-Signature` of a form that is posted to a URL."""
    signed = url + "".join(name + value for name, value in sorted(set(params)))
    return b64encode(hmac.digest(token.encode(), signed.encode(), "sha1")).decode()


async def post(backend: Backend, url: str, params: Params) -> httpx.Response:
    """Post a signed form, once more if there is no connection. Raises GatewayUnreachableError."""
    content = urlencode(params).encode()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "User-Agent": "TwilioProxy/1.1",
        "I-Twilio-Idempotency-Token": str(uuid4()),
        "X-Twilio-Signature": sign(backend.credentials.twilio_auth_token, url, params),
    }
    try:
        return await backend.gateway.post(url, content, headers)
    except NotConnectedError:
        return await backend.gateway.post(url, content, headers)


async def report(backend: Backend, sid: str, behaviour: Behaviour) -> None:
    """Let a message take its course, with a status callback for each step."""
    outcome = behaviour.outcome or "delivered"
    for status in COURSES[outcome]:
        message = backend.ledger.get(sid)
        if message is None or (message.progress and message.progress.status == "canceled"):
            return
        code = (behaviour.error_code or _FAILURES[status]) if status in _FAILURES else None
        message = replace(message, progress=Progress(status, datetime.now(UTC), code))
        backend.ledger.replace(message)
        if url := first(form_of(message), "StatusCallback"):
            await _try(backend, url, callback(message, backend.credentials.twilio_account_sid, status, code))


async def _try(backend: Backend, url: str, params: Params) -> None:
    try:
        await post(backend, url, params)
    except GatewayUnreachableError as exc:
        logger.warning("status callback lost: %s", exc)


def callback(message: AcceptedMessage, account_sid: str, status: str, code: int | None) -> Params:
    """The form of a status callback."""
    form = form_of(message)
    params = {
        "ApiVersion": API_VERSION,
        "MessageStatus": status,
        "SmsStatus": status,
        "SmsSid": message.id,
        "MessageSid": message.id,
        "AccountSid": account_sid,
        "From": sender_of(message) or "",
        "To": first(form, "To"),
    }
    if service := first(form, "MessagingServiceSid"):
        params["MessagingServiceSid"] = service
    if code is not None:
        params["ErrorCode"] = str(code)
    if status in {"delivered", "undelivered"}:
        params["RawDlrDoneDate"] = datetime.now(UTC).strftime("%y%m%d%H%M")
    return list(params.items())


def inbound(given: Payload, account_sid: str) -> Params:
    """The form of an inbound message: what is given goes out as it is, and the rest is made up.

    A list becomes a repeated field, and null leaves a field out.
    """
    media = sorted(name for name in given if name.startswith("MediaUrl"))
    sid = str(given.get("MessageSid") or f"{'MM' if media else 'SM'}{uuid4().hex}")
    fields: Payload = {
        **{f"{end}{part}": "" for end in ("To", "From") for part in _PLACE},
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "MessageSid": sid,
        "AccountSid": account_sid,
        "From": "+12025550123",
        "To": "+12025550187",
        "Body": "Is tomorrow at nine still free?",
        "NumMedia": len(media),
        "NumSegments": 1 if media else segment_count(str(given.get("Body") or "")),
        **{name.replace("Url", "ContentType"): _media_type(given[name]) for name in media},
        "ApiVersion": API_VERSION,
        **given,
    }
    return [(name, str(value)) for name, values in fields.items() for value in _several(values)]


def _several(values: JsonValue) -> list[JsonValue]:
    if values is None:
        return []
    return values if isinstance(values, list) else [values]


def _media_type(url: JsonValue) -> str:
    return mimetypes.guess_type(str(url))[0] or "image/jpeg"
