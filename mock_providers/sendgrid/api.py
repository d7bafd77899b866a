"""SendGrid's v3 mail send, its Event Webhook, and its Inbound Parse webhook."""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated

import httpx
import orjson
from fastapi import APIRouter, Body, Request, Response
from pydantic import AwareDatetime, TypeAdapter

from mock_providers.api import MockApi, Receipt
from mock_providers.behaviour import Behaviour
from mock_providers.responses import make_response
from mock_providers.sendgrid.events import events_of, make_event, sg_message_id
from mock_providers.sendgrid.inbound import ReceivedMail, form_parts
from mock_providers.sendgrid.mail import Mail, Problem, SendGridError, parse_mail
from mock_providers.sendgrid.settings import SendGridSettings
from mock_providers.sendgrid.signature import encode_public_key, signature_headers
from mock_providers.webhooks import GatewayUnreachableError, Payload, WebhookResult

EVENTS_PATH = "/api/webhooks/sendgrid/events"
INBOUND_PATH = "/api/webhooks/sendgrid/inbound"
MAX_BYTES = 30 * 1024 * 1024
RATE_LIMIT = 600
"""The limit that a 429 response names. Only the behaviour limits the rate."""
RETRY_DELAYS = (1, 2, 4, 8, 15, 30, 60, 60, 60)
"""Seconds before events that the gateway did not accept are sent again. SendGrid retries for a day."""

OUTCOMES = {
    "processed": ("processed",),
    "delivered": ("processed", "delivered"),
    "deferred": ("processed", "deferred"),
    "bounce": ("processed", "bounce"),
    "dropped": ("dropped",),
    "spamreport": ("processed", "delivered", "spamreport"),
    "unsubscribe": ("processed", "delivered", "unsubscribe"),
}

_TIMESTAMP = TypeAdapter(AwareDatetime)
_ERROR_MESSAGES = {
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "The from address does not match a verified Sender Identity",
    404: "not found",
    429: "too many requests",
}

logger = logging.getLogger(__name__)


class SendGrid(MockApi[SendGridSettings]):
    name = "sendgrid"
    settings_class = SendGridSettings
    outcomes = OUTCOMES

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route(
            "/v3/mail/send",
            self.send_mail,
            methods=["POST"],
            summary="Send an e-mail",
            status_code=HTTPStatus.ACCEPTED,
            response_model=None,
            tags=["SendGrid's API"],
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
            },
        )
        router.include_router(self._controls(), prefix="/mock/sendgrid", tags=["webhooks"])
        return router

    def _controls(self) -> APIRouter:
        router = APIRouter(responses={502: {"description": "The gateway did not respond"}})

        @router.get("/public-key", summary="Get the public key of SendGrid's signatures")
        async def get_public_key() -> Response:
            """Return the key that verifies the signatures, as SPKI in base64."""
            key = encode_public_key(self.settings.sendgrid_webhook_private_key)
            return Response(key, media_type="text/plain")

        @router.post("/events", summary="Send events as SendGrid does")
        async def send_events(given: Annotated[list[Payload], Body()]) -> WebhookResult:
            """Send events in one webhook: the given fields unchanged, and examples for the others."""
            return await self._send_events([make_event(fields) for fields in given])

        @router.post("/inbound", summary="Send an inbound e-mail as SendGrid does")
        async def send_inbound(
            mail: Annotated[ReceivedMail, Body(default_factory=ReceivedMail)],
        ) -> WebhookResult:
            """Send an e-mail as Inbound Parse does."""
            return await self._send_mail_form(mail)

        return router

    async def send_inbound(self, fields: Payload) -> WebhookResult:
        return await self._send_mail_form(ReceivedMail.model_validate(fields))

    async def send_receipt(self, receipt: Receipt) -> WebhookResult:
        """Send an event for each recipient of an accepted e-mail, or a single event for an unknown one."""
        given: Payload = {"event": receipt.status}
        if receipt.error_code is not None:
            given["status"] = str(receipt.error_code)
        if receipt.timestamp is not None:
            given["timestamp"] = int(_TIMESTAMP.validate_python(receipt.timestamp).timestamp())
        message_id = receipt.provider_message_id
        if message := self.ledger.get(message_id):
            mail = parse_mail(orjson.dumps(message.payload))
            return await self._send_events([*events_of(mail, message_id, given)])
        return await self._send_events([make_event({"sg_message_id": sg_message_id(message_id), **given})])

    async def _send_events(self, events: Sequence[Payload]) -> WebhookResult:
        response = await self._post(EVENTS_PATH, orjson.dumps(events), "application/json")
        return WebhookResult.of([*events], response)

    async def _send_mail_form(self, mail: ReceivedMail) -> WebhookResult:
        parts = [*form_parts(mail)]
        form = httpx.Request("POST", self.gateway.public_url, files=parts)  # httpx encodes multipart forms
        response = await self._post(INBOUND_PATH, form.read(), form.headers["content-type"])
        sent = {name: part[0] or part[1].decode(errors="replace") for name, part in parts}
        return WebhookResult.of({**sent}, response)

    async def _post(self, path: str, content: bytes, content_type: str) -> httpx.Response:
        headers = signature_headers(self.settings.sendgrid_webhook_private_key, content)
        url = self.gateway.public_url + path
        return await self.gateway.post(url, content, {"Content-Type": content_type, **headers})

    async def send_mail(self, request: Request) -> Response:
        return await self.respond(request, lambda body, behaviour: self._decide(request, body, behaviour))

    def _decide(self, request: Request, body: bytes, behaviour: Behaviour) -> Response:
        """Accept or refuse an e-mail. Without idempotency keys, a repeated request is a new e-mail."""
        try:
            mail = self._validate(request, body, behaviour)
        except SendGridError as exc:
            self.ledger.stats.refused += 1
            return _error_response(exc, behaviour)
        message = self.ledger.accept(secrets.token_urlsafe(16), body)
        if mail.mail_settings.sandbox_mode.enable:
            return make_response(behaviour.status or HTTPStatus.OK, None, behaviour)
        self.tasks.start(self._report(mail, message.id, behaviour))
        status = behaviour.status or HTTPStatus.ACCEPTED
        return make_response(status, None, behaviour, {"X-Message-Id": message.id})

    def _validate(self, request: Request, body: bytes, behaviour: Behaviour) -> Mail:
        if not behaviour.accepts:
            raise _general_error(behaviour.status or HTTPStatus.SERVICE_UNAVAILABLE)
        if len(body) > MAX_BYTES:
            raise _general_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        given = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(given, f"Bearer {self.settings.sendgrid_api_key}".encode()):
            raise _general_error(HTTPStatus.UNAUTHORIZED)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise _general_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return parse_mail(body)

    async def _report(self, mail: Mail, message_id: str, behaviour: Behaviour) -> None:
        """Send a webhook for each status, with the events of all recipients."""
        for status in self.statuses_to_report(behaviour):
            await self._send_until_accepted([*events_of(mail, message_id, {"event": status})])

    async def _send_until_accepted(self, events: Sequence[Payload]) -> None:
        for delay in (*RETRY_DELAYS, None):
            try:
                result = await self._send_events(events)
            except GatewayUnreachableError as exc:
                reason = str(exc)
            else:
                if httpx.codes.is_success(result.status):
                    return
                reason = f"status {result.status}"
            logger.info("events_not_accepted: %s", reason)
            if delay is not None:
                await asyncio.sleep(delay)
        logger.warning("events_lost")


def _general_error(status: int) -> SendGridError:
    return SendGridError(status, Problem(_ERROR_MESSAGES.get(status, f"Status {status}")))


def _error_response(error: SendGridError, behaviour: Behaviour) -> Response:
    content = {"errors": [problem.body for problem in error.problems]}
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        behaviour = behaviour.model_copy(update={"html": True})
    if error.status != HTTPStatus.TOO_MANY_REQUESTS:
        return make_response(error.status, content, behaviour)
    headers = {
        "X-RateLimit-Limit": str(RATE_LIMIT),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(_reset_time(behaviour.retry_after)),
    }
    # SendGrid sends no Retry-After.
    return make_response(error.status, content, behaviour.model_copy(update={"retry_after": None}), headers)


def _reset_time(retry_after: int | str | None) -> int:
    """Return when the rate limit is lifted, in seconds since 1970. The default is in a minute."""
    if isinstance(retry_after, str):
        return int(parsedate_to_datetime(retry_after).timestamp())
    return int(time.time()) + (60 if retry_after is None else retry_after)
