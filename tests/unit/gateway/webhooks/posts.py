"""Posts to every webhook: valid, genuine, and genuine but invalid ones."""

import json
from collections.abc import Mapping
from typing import Any

from tests.unit.gateway.requests import WEBHOOKS
from tests.webhooks import (
    DELIVERED,
    FORM,
    GENERIC_EMAIL,
    GENERIC_EMAIL_STATUS,
    GENERIC_SMS,
    GENERIC_SMS_STATUS,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    by_generic,
    by_sendgrid,
    by_twilio,
    events,
    multipart,
    urlencoded,
)

GENERIC = (GENERIC_SMS, GENERIC_SMS_STATUS, GENERIC_EMAIL, GENERIC_EMAIL_STATUS)
TWILIO = (TWILIO_MESSAGES, TWILIO_STATUS)
SENDGRID = (SENDGRID_INBOUND, SENDGRID_EVENTS)
PATHS = (*GENERIC, *TWILIO, *SENDGRID)

MEDIA_TYPES: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(GENERIC, JSON),
    **dict.fromkeys(TWILIO, FORM),
    SENDGRID_INBOUND: MULTIPART,
    SENDGRID_EVENTS: JSON,
}
BODIES: Mapping[str, bytes] = {
    **{path: json.dumps(payload).encode() for path, payload in WEBHOOKS.items()},
    TWILIO_MESSAGES: urlencoded(SMS),
    TWILIO_STATUS: urlencoded(STATUS),
    SENDGRID_INBOUND: multipart(MAIL),
    SENDGRID_EVENTS: events(DELIVERED),
}
SIGNATURES = {
    **dict.fromkeys(GENERIC, "webhook-signature"),
    **dict.fromkeys(TWILIO, "x-twilio-signature"),
    **dict.fromkeys(SENDGRID, "x-twilio-email-event-webhook-signature"),
}
"""The headers of the signatures."""


def unsigned(path: str) -> dict[str, Any]:
    """Return the arguments of a valid request."""
    return {"content": BODIES[path], "headers": MEDIA_TYPES[path]}


def signed(path: str) -> dict[str, Any]:
    """Return the arguments of a valid request that the provider has signed."""
    if path in GENERIC:
        return by_generic(BODIES[path])
    if path in TWILIO:
        return by_twilio(path, SMS if path == TWILIO_MESSAGES else STATUS)
    return by_sendgrid(BODIES[path], MEDIA_TYPES[path])


def with_header(request: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    return {**request, "headers": {**request["headers"], name: value.encode("latin-1")}}
