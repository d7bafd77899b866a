"""Twilio's webhooks: status callbacks and inbound messages, as signed forms."""

import mimetypes
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import uuid4

import httpx
from pydantic import JsonValue

from mock_providers.ledger import AcceptedMessage
from mock_providers.twilio.message import API_VERSION, first, form_of, new_sid, sender_of
from mock_providers.twilio.segments import segment_count
from mock_providers.twilio.signature import SIGNATURE_HEADER, sign
from mock_providers.webhooks import Gateway, NotConnectedError, Payload

INBOUND_PATH = "/api/webhooks/twilio/messages"

_GEOGRAPHY = ("City", "State", "Zip", "Country")

Params = list[tuple[str, str]]


async def post(gateway: Gateway, auth_token: str, url: str, params: Params) -> httpx.Response:
    """Post a signed form, and try once more if no connection is made.

    What follows a `#` in the URL is for Twilio only; it is neither sent nor signed, and ignored here.

    Raises:
        GatewayUnreachableError: There was no response.
    """
    url = url.partition("#")[0]
    content = urlencode(params).encode()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "User-Agent": "TwilioProxy/1.1",
        "I-Twilio-Idempotency-Token": str(uuid4()),
        SIGNATURE_HEADER: sign(auth_token, url, params),
    }
    try:
        return await gateway.post(url, content, headers)
    except NotConnectedError:
        return await gateway.post(url, content, headers)


def status_callback(
    message: AcceptedMessage, account_sid: str, status: str, error_code: int | str | None
) -> Params:
    """Return the form of a status callback."""
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
    if error_code is not None:
        params["ErrorCode"] = str(error_code)
    if status in {"delivered", "undelivered"}:
        params["RawDlrDoneDate"] = datetime.now(UTC).strftime("%y%m%d%H%M")
    return list(params.items())


def inbound_message(given: Payload, account_sid: str) -> Params:
    """Return the form of an inbound message: the given fields unchanged, and examples for the others.

    A list repeats a field, and null omits it.
    """
    media = sorted(name for name in given if name.startswith("MediaUrl"))
    sid = str(given.get("MessageSid") or new_sid(has_media=bool(media)))
    fields: Payload = {
        **{f"{end}{part}": "" for end in ("To", "From") for part in _GEOGRAPHY},
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
    return [(name, str(value)) for name, values in fields.items() for value in _as_list(values)]


def _as_list(values: JsonValue) -> list[JsonValue]:
    if values is None:
        return []
    return values if isinstance(values, list) else [values]


def _media_type(url: JsonValue) -> str:
    return mimetypes.guess_type(str(url))[0] or "image/jpeg"
