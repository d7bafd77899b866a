"""Twilio's Messages API, as far as a sender of messages uses it, and the controls around it."""

import secrets
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Body, HTTPException, Request, Response
from pydantic import BaseModel

from mock_providers.answers import answer
from mock_providers.backend import Backend
from mock_providers.behaviour import NORMAL, Behaviour
from mock_providers.connections import linger
from mock_providers.ledger import AcceptedMessage, Progress
from mock_providers.twilio import webhooks
from mock_providers.twilio.errors import RefusedError
from mock_providers.twilio.message import (
    API_VERSION,
    Form,
    check,
    created,
    first,
    form_of,
    parse_form,
    progress_of,
    recorded,
    resource,
)
from mock_providers.twilio.pages import page_of
from mock_providers.webhooks import Delivery, Payload, delivery

_DOCUMENTED: dict[str, Any] = {"response_model": None, "tags": ["Twilio's API"]}

CANCELABLE = {"accepted", "queued"}


class StatusReport(BaseModel):
    message_sid: str
    status: str
    error_code: int | None = None


def twilio_api(backend: Backend) -> APIRouter:
    messages = Messages(backend)
    router = APIRouter()
    path = f"/{API_VERSION}/Accounts/{{account_sid}}/Messages"
    router.post(f"{path}.json", **_DOCUMENTED)(messages.create)
    router.get(f"{path}.json", **_DOCUMENTED)(messages.list_)
    router.get(f"{path}/{{sid}}.json", **_DOCUMENTED)(messages.fetch)
    router.post(f"{path}/{{sid}}.json", **_DOCUMENTED)(messages.update)
    router.include_router(_controls(backend), prefix="/mock/twilio", tags=["webhooks"])
    return router


def _controls(backend: Backend) -> APIRouter:
    router = APIRouter(responses={502: {"description": "The gateway gave no answer"}})
    account_sid = backend.credentials.twilio_account_sid

    @router.post("/inbound")
    async def send_inbound(given: Annotated[Payload, Body(default_factory=dict)]) -> Delivery:
        """Send an inbound message. Fields given go out as they are, the others are filled in."""
        params = webhooks.inbound(given, account_sid)
        return await deliver(backend.gateway.public_url + webhooks.INBOUND_PATH, params)

    @router.post("/receipts")
    async def send_receipt(told: StatusReport) -> Delivery:
        """Send a status callback for an accepted message, whatever its status is."""
        message = backend.ledger.get(told.message_sid)
        url = first(form_of(message), "StatusCallback") if message else ""
        if not message or not url:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no such message, or it has no StatusCallback")
        return await deliver(url, webhooks.callback(message, account_sid, told.status, told.error_code))

    async def deliver(url: str, params: webhooks.Params) -> Delivery:
        return delivery(dict(params), await webhooks.post(backend, url, params))

    return router


class Messages:
    """The Messages resource of the one account."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._account = backend.credentials.twilio_account_sid
        self._under_way = 0

    async def create(self, account_sid: str, request: Request) -> Response:
        form = parse_form(await request.body())
        behaviour = self._backend.behaviour.next()
        self._under_way += 1
        try:
            response = self._settle(account_sid, request, form, behaviour)
            await linger(request, behaviour)
        finally:
            self._under_way -= 1
        return response

    def _settle(self, account_sid: str, request: Request, form: Form, behaviour: Behaviour) -> Response:
        """Accept the message or don't, and count it. The same message twice is two messages."""
        try:
            if not behaviour.accepts:
                raise _simulated(behaviour)
            self._authenticate(account_sid, request)
            check(form)
        except RefusedError as exc:
            self._backend.ledger.counts.refused += 1
            return self._refusal(exc, behaviour)
        message = created(form)
        self._backend.ledger.add(message)
        self._backend.errands.run(webhooks.report(self._backend, message.id, behaviour))
        status = behaviour.status or HTTPStatus.CREATED
        return answer(status, resource(message, self._account), behaviour, self._headers())

    async def fetch(self, account_sid: str, sid: str, request: Request) -> Response:
        return self._answer(account_sid, request, lambda: resource(self._find(sid), self._account))

    async def update(self, account_sid: str, sid: str, request: Request) -> Response:
        """An empty Body redacts a message that is done; Status=canceled stops one that waits."""
        form = parse_form(await request.body())

        def updated() -> dict[str, object]:
            message = _changed(self._find(sid), form)
            self._backend.ledger.replace(message)
            return resource(message, self._account)

        return self._answer(account_sid, request, updated)

    async def list_(self, account_sid: str, request: Request) -> Response:
        """The newest first, a page at a time; `To` and `From` narrow it down."""

        def page() -> dict[str, object]:
            query = dict(request.query_params)
            messages, place = page_of(query, self._matching(query), request.url.path)
            return {"messages": [resource(message, self._account) for message in messages], **place}

        return self._answer(account_sid, request, page)

    def _matching(self, query: dict[str, str]) -> list[AcceptedMessage]:
        wanted = [(name, query[name]) for name in ("To", "From") if name in query]
        messages = [message for message in self._backend.ledger.messages() if message.progress]
        return [
            message
            for message in reversed(messages)
            if not wanted or all(first(form_of(message), name) == value for name, value in wanted)
        ]

    def _find(self, sid: str) -> AcceptedMessage:
        message = self._backend.ledger.get(sid)
        if message is None or message.progress is None:
            raise RefusedError(20404, HTTPStatus.NOT_FOUND)
        return message

    def _answer(
        self, account_sid: str, request: Request, content: Callable[[], dict[str, object]]
    ) -> Response:
        try:
            self._authenticate(account_sid, request)
            return answer(HTTPStatus.OK, content(), NORMAL, self._headers())
        except RefusedError as exc:
            return self._refusal(exc, NORMAL)

    def _authenticate(self, account_sid: str, request: Request) -> None:
        pair = f"{self._account}:{self._backend.credentials.twilio_auth_token}"
        expected = f"Basic {b64encode(pair.encode()).decode()}"
        given = request.headers.get("authorization", "")
        if account_sid != self._account or not secrets.compare_digest(given.encode(), expected.encode()):
            raise RefusedError(20003, HTTPStatus.UNAUTHORIZED)

    def _refusal(self, error: RefusedError, behaviour: Behaviour) -> Response:
        headers = self._headers()
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Basic realm="Twilio API"'
        return answer(error.status, error.body, behaviour, headers)

    def _headers(self) -> dict[str, str]:
        return {
            "Twilio-Request-Id": f"RQ{uuid4().hex}",
            "Twilio-Concurrent-Requests": str(self._under_way),
        }


def _simulated(behaviour: Behaviour) -> RefusedError:
    """The error that was asked for; Twilio's general codes are 20000 and the status."""
    status = behaviour.status or HTTPStatus.SERVICE_UNAVAILABLE
    general = 20003 if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} else 20_000 + status
    return RefusedError(behaviour.error_code or general, status)


def _changed(message: AcceptedMessage, form: Form) -> AcceptedMessage:
    """The message after an update. Raises RefusedError where its status doesn't allow that."""
    status = progress_of(message).status
    if "Status" in form:
        if first(form, "Status") != "canceled" or status not in CANCELABLE:
            raise RefusedError(30409)
        return replace(message, progress=Progress("canceled", datetime.now(UTC)))
    if form.get("Body") != [""] or status in CANCELABLE:
        raise RefusedError(20009)
    return replace(message, payload=recorded({**form_of(message), "Body": [""]}))
