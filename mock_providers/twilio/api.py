"""The part of Twilio's Messages API that is needed to send messages."""

import logging
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import APIRouter, Body, HTTPException, Request, Response
from pydantic import BaseModel

from mock_providers.api import MockApi, Receipt
from mock_providers.behaviour import NORMAL, Behaviour, BehaviourSwitch
from mock_providers.ledger import AcceptedMessage, Progress
from mock_providers.responses import make_response
from mock_providers.twilio.errors import TwilioError
from mock_providers.twilio.message import (
    API_VERSION,
    Form,
    encode_form,
    first,
    form_of,
    initial_status,
    new_sid,
    parse_form,
    progress_of,
    resource,
    validate,
)
from mock_providers.twilio.pagination import paginate
from mock_providers.twilio.settings import TwilioSettings
from mock_providers.twilio.webhooks import INBOUND_PATH, Params, inbound_message, post, status_callback
from mock_providers.webhooks import Gateway, GatewayUnreachableError, Payload, WebhookResult

CANCELABLE = {"accepted", "queued"}
MESSAGES_PATH = f"/{API_VERSION}/Accounts/{{account_sid}}/Messages"
OUTCOMES: dict[str, tuple[str, ...]] = {
    "queued": (),
    "sent": ("sent",),
    "delivered": ("sent", "delivered"),
    "undelivered": ("sent", "undelivered"),
    "failed": ("failed",),
}
"""Without the status of a new message, which Twilio does not report."""

_DEFAULT_ERROR_CODES = {"undelivered": 30003, "failed": 30008}

logger = logging.getLogger(__name__)


_PICTURE = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
"""One pixel."""


class StatusCallback(BaseModel):
    message_sid: str
    status: str
    error_code: int | None = None


class Twilio(MockApi[TwilioSettings]):
    name = "twilio"
    settings_class = TwilioSettings
    outcomes = OUTCOMES

    def __init__(self, settings: TwilioSettings, gateway: Gateway, behaviour: BehaviourSwitch) -> None:
        super().__init__(settings, gateway, behaviour)
        self._account_sid = settings.twilio_account_sid
        self._open_requests = 0

    def router(self) -> APIRouter:
        router = APIRouter()
        documentation: dict[str, Any] = {"response_model": None, "tags": ["Twilio's API"]}
        collection, item = f"{MESSAGES_PATH}.json", f"{MESSAGES_PATH}/{{sid}}.json"
        router.post(collection, summary="Create a message", **documentation)(self.create_message)
        router.get(collection, summary="List messages", **documentation)(self.list_messages)
        router.get(item, summary="Fetch a message", **documentation)(self.fetch_message)
        router.post(item, summary="Redact or cancel a message", **documentation)(self.update_message)
        media = f"{MESSAGES_PATH}/{{sid}}/Media/{{media_sid}}"
        router.get(media, summary="Fetch a file of an inbound MMS", **documentation)(self.fetch_media)
        router.include_router(self._controls(), prefix="/mock/twilio", tags=["webhooks"])
        return router

    def _controls(self) -> APIRouter:
        router = APIRouter(responses={502: {"description": "The gateway did not respond"}})

        @router.post("/inbound", summary="Send an inbound message as Twilio does")
        async def send_inbound(given: Annotated[Payload, Body(default_factory=dict)]) -> WebhookResult:
            """Send an inbound message: the given fields unchanged, and examples for the others."""
            return await self.send_inbound(given)

        @router.post("/receipts", summary="Send a status callback as Twilio does")
        async def send_receipt(callback: StatusCallback) -> WebhookResult:
            """Send a status callback for an accepted message, whatever its current status is."""
            return await self.send_receipt(
                Receipt(
                    provider_message_id=callback.message_sid,
                    status=callback.status,
                    error_code=callback.error_code,
                )
            )

        return router

    async def send_inbound(self, fields: Payload) -> WebhookResult:
        params = inbound_message(fields, self._account_sid)
        return await self._send_webhook(self.gateway.public_url + INBOUND_PATH, params)

    async def send_receipt(self, receipt: Receipt) -> WebhookResult:
        message = self.ledger.get(receipt.provider_message_id)
        url = first(form_of(message), "StatusCallback") if message else ""
        if not message or not url:
            raise HTTPException(HTTPStatus.NOT_FOUND, "Message not found, or it has no StatusCallback")
        params = status_callback(message, self._account_sid, receipt.status, receipt.error_code)
        return await self._send_webhook(url, params)

    async def _send_webhook(self, url: str, params: Params) -> WebhookResult:
        response = await post(self.gateway, self.settings.twilio_auth_token, url, params)
        return WebhookResult.of(dict(params), response)

    async def create_message(self, account_sid: str, request: Request) -> Response:
        self._open_requests += 1
        try:
            return await self.respond(
                request, lambda body, behaviour: self._decide(account_sid, request, body, behaviour)
            )
        finally:
            self._open_requests -= 1

    def _decide(self, account_sid: str, request: Request, body: bytes, behaviour: Behaviour) -> Response:
        """Accept or refuse a message. Without idempotency keys, a repeated request is a new message."""
        form = parse_form(body)
        try:
            if not behaviour.accepts:
                raise _simulated_error(behaviour)
            self._authenticate(account_sid, request)
            validate(form)
        except TwilioError as exc:
            self.ledger.stats.refused += 1
            return self._error_response(exc, behaviour)
        sid = new_sid(has_media="MediaUrl" in form)
        message = self.ledger.accept(sid, encode_form(form), status=initial_status(form))
        self.tasks.start(self._report(sid, behaviour))
        status = behaviour.status or HTTPStatus.CREATED
        return make_response(status, resource(message, self._account_sid), behaviour, self._headers())

    async def _report(self, sid: str, behaviour: Behaviour) -> None:
        """Move a message through its statuses, and send a callback for each."""
        for status in self.statuses_to_report(behaviour):
            message = self.ledger.get(sid)
            if message is None or progress_of(message).status == "canceled":
                return
            default_code = _DEFAULT_ERROR_CODES.get(status)
            code = default_code and (behaviour.error_code or default_code)
            message = replace(message, progress=Progress(status, datetime.now(UTC), code))
            self.ledger.replace(message)
            if url := first(form_of(message), "StatusCallback"):
                try:
                    await self._send_webhook(url, status_callback(message, self._account_sid, status, code))
                except GatewayUnreachableError as exc:
                    logger.warning("status_callback_lost: %s", exc)

    async def fetch_message(self, account_sid: str, sid: str, request: Request) -> Response:
        return self._answer(account_sid, request, lambda: resource(self._find(sid), self._account_sid))

    async def fetch_media(self, account_sid: str, request: Request) -> Response:
        """Return a picture, whatever the ids are, if the request has the credentials of the account.

        Twilio itself redirects to another host, which needs none.
        """
        try:
            self._authenticate(account_sid, request)
        except TwilioError as exc:
            return self._error_response(exc, NORMAL)
        return Response(_PICTURE, media_type="image/png")

    async def update_message(self, account_sid: str, sid: str, request: Request) -> Response:
        """Redact a sent message with an empty `Body`, or stop an unsent one with `Status=canceled`."""
        form = parse_form(await request.body())

        def update() -> dict[str, object]:
            message = _updated(self._find(sid), form)
            self.ledger.replace(message)
            return resource(message, self._account_sid)

        return self._answer(account_sid, request, update)

    async def list_messages(self, account_sid: str, request: Request) -> Response:
        """List messages, newest first, filtered by `To` and `From`."""

        def page() -> dict[str, object]:
            query = dict(request.query_params)
            messages, page_fields = paginate(query, self._matching(query), request.url.path)
            return {"messages": [resource(message, self._account_sid) for message in messages], **page_fields}

        return self._answer(account_sid, request, page)

    def _matching(self, query: dict[str, str]) -> list[AcceptedMessage]:
        filters = [(name, query[name]) for name in ("To", "From") if name in query]
        return [
            message
            for message in reversed(self.ledger.messages())
            if not filters or all(first(form_of(message), name) == value for name, value in filters)
        ]

    def _find(self, sid: str) -> AcceptedMessage:
        message = self.ledger.get(sid)
        if message is None:
            raise TwilioError(20404, HTTPStatus.NOT_FOUND)
        return message

    def _answer(
        self, account_sid: str, request: Request, content: Callable[[], dict[str, object]]
    ) -> Response:
        """Respond to a request that the behaviour does not affect."""
        try:
            self._authenticate(account_sid, request)
            return make_response(HTTPStatus.OK, content(), NORMAL, self._headers())
        except TwilioError as exc:
            return self._error_response(exc, NORMAL)

    def _authenticate(self, account_sid: str, request: Request) -> None:
        pair = f"{self._account_sid}:{self.settings.twilio_auth_token}"
        expected = f"Basic {b64encode(pair.encode()).decode()}"
        given = request.headers.get("authorization", "")
        if account_sid != self._account_sid or not secrets.compare_digest(given.encode(), expected.encode()):
            raise TwilioError(20003, HTTPStatus.UNAUTHORIZED)

    def _error_response(self, error: TwilioError, behaviour: Behaviour) -> Response:
        headers = self._headers()
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Basic realm="Twilio API"'
        return make_response(error.status, error.body, behaviour, headers)

    def _headers(self) -> dict[str, str]:
        return {
            "Twilio-Request-Id": f"RQ{uuid4().hex}",
            "Twilio-Concurrent-Requests": str(self._open_requests),
        }


def _simulated_error(behaviour: Behaviour) -> TwilioError:
    """Return the error that a behaviour asks for. Twilio's general codes are 20000 plus the status."""
    status = behaviour.status or HTTPStatus.SERVICE_UNAVAILABLE
    general = 20003 if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} else 20_000 + status
    return TwilioError(behaviour.error_code or general, status)


def _updated(message: AcceptedMessage, form: Form) -> AcceptedMessage:
    """Return the message after an update. Raises TwilioError if its status does not allow the update."""
    status = progress_of(message).status
    if "Status" in form:
        if first(form, "Status") != "canceled" or status not in CANCELABLE:
            raise TwilioError(30409)
        return replace(message, progress=Progress("canceled", datetime.now(UTC)))
    if form.get("Body") != [""] or status in CANCELABLE:
        raise TwilioError(20009)
    return replace(message, payload=orjson.Fragment(encode_form({**form_of(message), "Body": [""]})))
