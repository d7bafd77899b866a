"""The Message resource: validation of the form that creates a message, and its representation."""

import re
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import orjson

from mock_providers.ledger import AcceptedMessage, Progress
from mock_providers.twilio.errors import MESSAGES, TwilioError
from mock_providers.twilio.segments import segment_count

Form = dict[str, list[str]]

API_VERSION = "2010-04-01"
MAX_BODY = 1600
MAX_MEDIA = 10
MAX_VALIDITY = 36_000
POOLED_NUMBER = "+15005550006"
"""The number from which a Messaging Service sends."""

_E164 = re.compile(r"\+[1-9]\d{6,14}")
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 +&_-]{1,11}")
_SERVICE = re.compile("MG[0-9a-fA-F]{32}")

# Twilio's test credentials respond with these errors to these numbers.
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
    """Return the first value of a field, or an empty string."""
    return form.get(name, [""])[0]


def validate(form: Form) -> None:
    """Raise a TwilioError for the first problem of a new message."""
    _validate_addresses(form)
    _validate_content(form)
    callback, validity = first(form, "StatusCallback"), first(form, "ValidityPeriod")
    if callback and not _is_url(callback):
        raise TwilioError(21609)
    if validity and not (validity.isdecimal() and 1 <= int(validity) <= MAX_VALIDITY):
        raise TwilioError(90007)


def _validate_addresses(form: Form) -> None:
    to, sender, service = (first(form, name) for name in ("To", "From", "MessagingServiceSid"))
    problems = (
        (not to, 21604),
        (not sender and not service, 21603),
        (not _E164.fullmatch(to), 21211),
        (bool(sender) and not _SENDER.fullmatch(sender), 21212),
        (to == sender, 21266),
        (bool(service) and not _SERVICE.fullmatch(service), 21701),
        (to in _MAGIC_TO, _MAGIC_TO.get(to, 0)),
        (sender in _MAGIC_FROM, _MAGIC_FROM.get(sender, 0)),
    )
    _raise_first(problems)


def _validate_content(form: Form) -> None:
    media = form.get("MediaUrl", [])
    problems = (
        (not first(form, "Body") and not media, 21602),
        (len(first(form, "Body")) > MAX_BODY, 21617),
        (len(media) > MAX_MEDIA, 21623),
        (not all(map(_is_url, media)), 21620),
    )
    _raise_first(problems)


def _raise_first(problems: tuple[tuple[bool, int], ...]) -> None:
    for is_present, code in problems:
        if is_present:
            raise TwilioError(code)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def new_sid(*, has_media: bool) -> str:
    return f"{'MM' if has_media else 'SM'}{uuid4().hex}"


def initial_status(form: Form) -> str:
    """Return the status of a new message: a Messaging Service still has to pick a number for it."""
    return "accepted" if first(form, "MessagingServiceSid") else "queued"


def encode_form(form: Form) -> bytes:
    """Return the form as the ledger keeps it: a list only for the field that can be repeated."""
    return orjson.dumps({name: values if name == "MediaUrl" else values[0] for name, values in form.items()})


def form_of(message: AcceptedMessage) -> Form:
    fields: dict[str, str | list[str]] = orjson.loads(orjson.dumps(message.payload))
    return {name: value if isinstance(value, list) else [value] for name, value in fields.items()}


def progress_of(message: AcceptedMessage) -> Progress:
    return message.progress or Progress("accepted", message.accepted_at)


def sender_of(message: AcceptedMessage) -> str | None:
    """Return the sender, or None until a Messaging Service has picked one."""
    if sender := first(form_of(message), "From"):
        return sender
    return None if progress_of(message).status == "accepted" else POOLED_NUMBER


def resource(message: AcceptedMessage, account_sid: str) -> dict[str, object]:
    """Return the representation of a message in responses."""
    form, progress, sender = form_of(message), progress_of(message), sender_of(message)
    uri = f"/{API_VERSION}/Accounts/{account_sid}/Messages/{message.id}"
    body, media = first(form, "Body"), form.get("MediaUrl", [])
    segments = 1 if media else segment_count(body)
    is_unsent = progress.status in {"accepted", "queued", "canceled"}
    return {
        "account_sid": account_sid,
        "api_version": API_VERSION,
        "body": body,
        "date_created": _rfc2822(message.accepted_at),
        "date_sent": None if is_unsent else _rfc2822(progress.updated_at),
        "date_updated": _rfc2822(progress.updated_at),
        "direction": "outbound-api",
        "error_code": progress.error_code,
        "error_message": MESSAGES.get(progress.error_code or 0),
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
