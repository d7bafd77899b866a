"""What SendGrid sends, with its signature: events of the mails that it took, and mails that it received."""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator, Mapping

import httpx
import orjson

from mock_providers.backend import Backend
from mock_providers.behaviour import Behaviour
from mock_providers.sendgrid.mail import Mail, custom_args
from mock_providers.sendgrid.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from mock_providers.webhooks import GatewayUnreachableError, Payload

EVENTS_PATH = "/api/webhooks/sendgrid/events"
INBOUND_PATH = "/api/webhooks/sendgrid/inbound"
COURSES: dict[str, tuple[str, ...]] = {
    "processed": ("processed",),
    "delivered": ("processed", "delivered"),
    "deferred": ("processed", "deferred"),
    "bounce": ("processed", "bounce"),
    "dropped": ("dropped",),
    "spamreport": ("processed", "delivered", "spamreport"),
    "unsubscribe": ("processed", "delivered", "unsubscribe"),
}
"""What is reported of a mail, for each outcome."""

RETRY_DELAYS = (1, 2, 4, 8, 15, 30, 60, 60, 60)
"""Seconds until events are sent again that weren't taken. The real one goes on for a day."""

_DETAILS: dict[str, Payload] = {
    "delivered": {"response": "250 OK", "tls": 1},
    "deferred": {"response": "400 try again later", "attempt": "1"},
    "bounce": {"type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 The account does not exist"},
    "dropped": {"status": "5.0.0", "reason": "Bounced Address"},
}

logger = logging.getLogger(__name__)


async def post(
    backend: Backend, path: str, content: bytes, content_type: str = "application/json"
) -> httpx.Response:
    """Post a signed webhook. Raises GatewayUnreachableError."""
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": content_type,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: sign(backend.credentials.sendgrid_key, timestamp, content),
    }
    return await backend.gateway.post(backend.gateway.public_url + path, content, headers)


async def report(backend: Backend, mail: Mail, message_id: str, behaviour: Behaviour) -> None:
    """Let a mail take its course, with a webhook for each step, of all recipients."""
    for kind in COURSES[behaviour.outcome or "delivered"]:
        await _until_taken(backend, orjson.dumps([*events(mail, message_id, kind)]))


async def _until_taken(backend: Backend, content: bytes) -> None:
    for delay in (*RETRY_DELAYS, None):
        try:
            response = await post(backend, EVENTS_PATH, content)
        except GatewayUnreachableError as exc:
            reason = str(exc)
        else:
            if response.is_success:
                return
            reason = f"status {response.status_code}"
        logger.info("events not taken: %s", reason)
        if delay is not None:
            await asyncio.sleep(delay)
    logger.warning("events lost")


def events(mail: Mail, message_id: str, kind: str) -> Iterator[Payload]:
    """One for each recipient. Custom arguments are among its own fields, but can't replace them."""
    for part in mail.personalizations:
        for position, address in enumerate(part.recipients):
            yield {
                **custom_args(mail, part),
                **({"category": [*mail.categories]} if mail.categories else {}),
                **event(
                    {
                        "email": address,
                        "event": kind,
                        "sg_message_id": _sg_message_id(message_id, kind, position),
                    }
                ),
            }


def event(given: Mapping[str, object]) -> Payload:
    """An event around what is given of it, which goes out as it is."""
    kind = given.get("event", "delivered")
    filled: Payload = {
        "email": "customer@example.com",
        "timestamp": int(time.time()),
        "smtp-id": f"<{secrets.token_urlsafe(12)}@mock-sendgrid>",
        "event": "delivered",
        **_DETAILS.get(str(kind), {}),
        "sg_event_id": secrets.token_urlsafe(16),
        "sg_message_id": f"{secrets.token_urlsafe(16)}.recvd-mock-1-0.0",
    }
    return {**filled, **given}  # type: ignore[dict-item]  # JSON by the caller's word


def _sg_message_id(message_id: str, kind: str, position: int) -> str:
    """It begins with the X-Message-Id, but for a mail that never went through the queue."""
    begin = secrets.token_urlsafe(16) if kind == "dropped" else message_id
    return f"{begin}.recvd-mock-1-{position}.0"
