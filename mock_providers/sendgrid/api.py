"""SendGrid's v3 mail send, and the controls around it."""

import secrets
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated

import httpx
import orjson
from fastapi import APIRouter, Body, Request, Response

from mock_providers.answers import answer
from mock_providers.backend import Backend
from mock_providers.behaviour import Behaviour
from mock_providers.connections import linger
from mock_providers.ledger import AcceptedMessage
from mock_providers.sendgrid import webhooks
from mock_providers.sendgrid.inbound import ReceivedMail, parts
from mock_providers.sendgrid.mail import Fault, Mail, RefusedError, parse_mail
from mock_providers.sendgrid.signature import encode_public_key
from mock_providers.webhooks import Delivery, Payload, delivery

MAX_BYTES = 30 * 1024 * 1024
RATE_LIMIT = 600
"""Of which a 429 tells; the rate itself is limited by the behaviour only."""

_TEXTS = {
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "The from address does not match a verified Sender Identity",
    404: "not found",
    429: "too many requests",
}


def sendgrid_api(backend: Backend) -> APIRouter:
    router = APIRouter()
    router.add_api_route(
        "/v3/mail/send",
        MailSend(backend).send,
        methods=["POST"],
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
    router.include_router(_controls(backend), prefix="/mock/sendgrid", tags=["webhooks"])
    return router


def _controls(backend: Backend) -> APIRouter:
    router = APIRouter(responses={502: {"description": "The gateway gave no answer"}})

    @router.get("/public-key")
    async def public_key() -> Response:
        """What the gateway checks signatures with: SPKI in base64."""
        return Response(encode_public_key(backend.credentials.sendgrid_key), media_type="text/plain")

    @router.post("/events")
    async def send_events(given: Annotated[list[Payload], Body()]) -> Delivery:
        """Send events in one webhook. Fields given go out as they are, the others are filled in."""
        payload = [webhooks.event(fields) for fields in given]
        response = await webhooks.post(backend, webhooks.EVENTS_PATH, orjson.dumps(payload))
        return delivery([*payload], response)

    @router.post("/inbound")
    async def send_inbound(mail: Annotated[ReceivedMail, Body(default_factory=ReceivedMail)]) -> Delivery:
        """Send a mail as Inbound Parse would."""
        fields = [*parts(mail)]
        request = httpx.Request("POST", backend.gateway.public_url, files=fields)
        response = await webhooks.post(
            backend, webhooks.INBOUND_PATH, request.read(), request.headers["content-type"]
        )
        sent = {name: part[0] or part[1].decode(errors="replace") for name, part in fields}
        return delivery({**sent}, response)

    return router


class MailSend:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def send(self, request: Request) -> Response:
        body = await request.body()
        behaviour = self._backend.behaviour.next()
        response = self._settle(request, body, behaviour)
        await linger(request, behaviour)
        return response

    def _settle(self, request: Request, body: bytes, behaviour: Behaviour) -> Response:
        """Accept the mail or don't, and count it. The same mail twice is two mails."""
        try:
            mail = self._check(request, body, behaviour)
        except RefusedError as exc:
            self._backend.ledger.counts.refused += 1
            return _refusal(exc, behaviour)
        message = AcceptedMessage(secrets.token_urlsafe(16), None, datetime.now(UTC), orjson.Fragment(body))
        self._backend.ledger.add(message)
        if mail.mail_settings.sandbox_mode.enable:
            return answer(behaviour.status or HTTPStatus.OK, None, behaviour)
        self._backend.errands.run(webhooks.report(self._backend, mail, message.id, behaviour))
        status = behaviour.status or HTTPStatus.ACCEPTED
        return answer(status, None, behaviour, {"X-Message-Id": message.id})

    def _check(self, request: Request, body: bytes, behaviour: Behaviour) -> Mail:
        if not behaviour.accepts:
            status = behaviour.status or HTTPStatus.SERVICE_UNAVAILABLE
            raise _error(status)
        if len(body) > MAX_BYTES:
            raise _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        given = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(given, f"Bearer {self._backend.credentials.sendgrid_api_key}".encode()):
            raise _error(HTTPStatus.UNAUTHORIZED)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise _error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return parse_mail(body)


def _error(status: int) -> RefusedError:
    return RefusedError(status, Fault(_TEXTS.get(status, f"Status {status}")))


def _refusal(error: RefusedError, behaviour: Behaviour) -> Response:
    content = {"errors": [fault.body for fault in error.faults]}
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        behaviour = behaviour.model_copy(update={"html": True})
    if error.status != HTTPStatus.TOO_MANY_REQUESTS:
        return answer(error.status, content, behaviour)
    headers = {
        "X-RateLimit-Limit": str(RATE_LIMIT),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(_reset(behaviour.retry_after)),
    }
    return answer(error.status, content, behaviour.model_copy(update={"retry_after": None}), headers)


def _reset(retry_after: int | str | None) -> int:
    """When the limit is lifted, in seconds since 1970; in a minute unless told otherwise."""
    if isinstance(retry_after, str):
        return int(parsedate_to_datetime(retry_after).timestamp())
    return int(time.time()) + (60 if retry_after is None else retry_after)
