"""The Message resource: the form that creates one, and what the API tells of it."""

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import orjson

from mock_providers.ledger import AcceptedMessage, Progress
from mock_providers.twilio.errors import TEXTS, RefusedError
from mock_providers.twilio.segments import segment_count

Form = dict[str, list[str]]

API_VERSION = "2010-04-01"
MAX_BODY = 1600
MAX_MEDIA = 10
MAX_VALIDITY = 36_000
POOLED_NUMBER = "+15005550006"
"""What a Messaging Service sends from."""

_E164 = re.compile(r"\+[1-9]\d{6,14}")
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 +&_-]{1,11}")
_SERVICE = re.compile("MG[0-9a-fA-F]{32}")

# The numbers that Twilio's own test credentials give a meaning to.
_MAGIC_TO = {
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}
_MAGIC_FROM = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}


def parse_form(body: bytes) -> Form:
    return parse_qs(body.decode(errors="replace"), keep_blank_values=True)


def first(form: Form, name: str) -> str:
    """The value of a field; empty when it has none."""
    return form.get(name, [""])[0]


def check(form: Form) -> None:
    """Raise RefusedError for the first thing that is wrong with a new message."""
    _check_addresses(form)
    _check_content(form)
    callback, validity = first(form, "StatusCallback"), first(form, "ValidityPeriod")
    if callback and not _is_url(callback):
        raise RefusedError(21609)
    if validity and not (validity.isdecimal() and 1 <= int(validity) <= MAX_VALIDITY):
        raise RefusedError(90007)


def _check_addresses(form: Form) -> None:
    to, sender, service = (first(form, name) for name in ("To", "From", "MessagingServiceSid"))
    faults = (
        (not to, 21604),
        (not sender and not service, 21603),
        (not _E164.fullmatch(to), 21211),
        (bool(sender) and not _SENDER.fullmatch(sender), 21212),
        (to == sender, 21266),
        (bool(service) and not _SERVICE.fullmatch(service), 21701),
        (to in _MAGIC_TO, _MAGIC_TO.get(to, 0)),
        (sender in _MAGIC_FROM, _MAGIC_FROM.get(sender, 0)),
    )
    for wrong, code in faults:
        if wrong:
            raise RefusedError(code)


def _check_content(form: Form) -> None:
    media = form.get("MediaUrl", [])
    faults = (
        (not first(form, "Body") and not media, 21602),
        (len(first(form, "Body")) > MAX_BODY, 21617),
        (len(media) > MAX_MEDIA, 21623),
        (not all(map(_is_url, media)), 21620),
    )
    for wrong, code in faults:
        if wrong:
            raise RefusedError(code)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def created(form: Form) -> AcceptedMessage:
    now = datetime.now(UTC)
    sid = f"{'MM' if form.get('MediaUrl') else 'SM'}{uuid4().hex}"
    status = "accepted" if first(form, "MessagingServiceSid") else "queued"
    return AcceptedMessage(sid, None, now, recorded(form), Progress(status, now))


def recorded(form: Form) -> orjson.Fragment:
    """The form as the ledger keeps it: a list only for what can be repeated."""
    return orjson.Fragment(
        orjson.dumps({name: values if name == "MediaUrl" else values[0] for name, values in form.items()})
    )


def form_of(message: AcceptedMessage) -> Form:
    fields: dict[str, str | list[str]] = orjson.loads(orjson.dumps(message.payload))
    return {name: value if isinstance(value, list) else [value] for name, value in fields.items()}


def progress_of(message: AcceptedMessage) -> Progress:
    return message.progress or Progress("accepted", message.accepted_at)


def sender_of(message: AcceptedMessage) -> str | None:
    """None until a Messaging Service has picked one."""
    if sender := first(form_of(message), "From"):
        return sender
    return None if progress_of(message).status == "accepted" else POOLED_NUMBER


def resource(message: AcceptedMessage, account_sid: str) -> dict[str, object]:
    """What the API answers."""
    form, progress, sender = form_of(message), progress_of(message), sender_of(message)
    uri = f"/{API_VERSION}/Accounts/{account_sid}/Messages/{message.id}"
    body, media = first(form, "Body"), form.get("MediaUrl", [])
    segments = 1 if media else segment_count(body)
    waiting = progress.status in {"accepted", "queued", "canceled"}
    return {
        "account_sid": account_sid,
        "api_version": API_VERSION,
        "body": body,
        "date_created": _rfc2822(message.accepted_at),
        "date_sent": None if waiting else _rfc2822(progress.updated_at),
        "date_updated": _rfc2822(progress.updated_at),
        "direction": "outbound-api",
        "error_code": progress.error_code,
        "error_message": TEXTS.get(progress.error_code or 0),
        "from": sender,
        "messaging_service_sid": first(form, "MessagingServiceSid") or None,
        "num_media": str(len(media)),
        "num_segments": str(segments if sender else 0),
        "price": None,
        "price_unit": "USD",
        "sid": message.id,
        "status": progress.status,
        "subresource_uris": {"media": f"{uri}/Media.json"},
        "to": first(form, "To"),
        "uri": f"{uri}.json",
    }


def _rfc2822(moment: datetime) -> str:
    return format_datetime(moment.replace(microsecond=0))
