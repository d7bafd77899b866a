"""The generic API: `POST /messages` with idempotency keys, and webhooks by Standard Webhooks."""

import json
from abc import abstractmethod
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, ClassVar
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mock_providers.api import MockApi, Receipt
from mock_providers.behaviour import Behaviour
from mock_providers.generic.settings import GenericSettings
from mock_providers.generic.signature import webhook_headers
from mock_providers.ledger import bare_key
from mock_providers.responses import make_response
from mock_providers.webhooks import Payload, WebhookResult


class OutboundMessage(BaseModel):
    """The fields that both channels have. Other fields are accepted and recorded."""

    model_config = ConfigDict(extra="allow")

    from_: str = Field(alias="from", min_length=1)
    to: str | list[str] = Field(min_length=1)
    body: str
    attachments: list[str] | None = Field(default=None, description="URLs")
    timestamp: AwareDatetime


class GenericApi(MockApi[GenericSettings]):
    """The generic API of one channel.

    Attributes:
        id_field: The field of responses and webhooks that has the provider's message id.
        id_prefix: The beginning of each message id.
        message_model: The body of `POST /messages`.
        webhook_path: Where the gateway receives inbound messages. It receives receipts at `…/status`.
    """

    settings_class = GenericSettings
    id_field: ClassVar[str]
    id_prefix: ClassVar[str]
    message_model: ClassVar[type[OutboundMessage]]
    webhook_path: ClassVar[str]

    @abstractmethod
    def example_inbound(self, fields: Payload) -> Payload:
        """Return an example of an inbound message that fits the given fields."""

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/messages", self.send_message, **_documentation(self))
        return router

    async def send_message(self, request: Request) -> Response:
        key = bare_key(request.headers.get("idempotency-key"))
        return await self.respond(request, lambda body, behaviour: self._decide(body, key, behaviour))

    def _decide(self, body: bytes, key: str | None, behaviour: Behaviour) -> Response:
        stats = self.ledger.stats
        if not behaviour.accepts:
            stats.refused += 1
            status = behaviour.status or HTTPStatus.SERVICE_UNAVAILABLE
            return _error(status, "simulated", "This error was requested with PUT /mock/behaviour", behaviour)

        message = self.ledger.find(key) if key else None
        if message:
            stats.repeated_keys += 1
        else:
            try:
                self.message_model.model_validate(orjson.loads(body))
            except ValueError as exc:
                stats.refused += 1
                return _error(HTTPStatus.BAD_REQUEST, "invalid_message", _explain(exc), behaviour)
            message = self.ledger.accept(self._new_id(), body, idempotency_key=key)
        status = behaviour.status or HTTPStatus.ACCEPTED
        return make_response(status, {self.id_field: message.id}, behaviour)

    async def send_inbound(self, fields: Payload) -> WebhookResult:
        payload: Payload = {
            **self.example_inbound(fields),
            self.id_field: self._new_id(),
            "timestamp": _now(),
            **fields,
        }
        return await self._send_webhook(self.webhook_path, str(payload[self.id_field]), payload)

    async def send_receipt(self, receipt: Receipt) -> WebhookResult:
        payload: Payload = {
            self.id_field: receipt.provider_message_id,
            "status": receipt.status,
            "error_code": receipt.error_code,
            "timestamp": receipt.timestamp or _now(),
        }
        event = f"{receipt.provider_message_id}#{receipt.status}"
        return await self._send_webhook(f"{self.webhook_path}/status", event, payload)

    async def _send_webhook(self, path: str, event: str, payload: Payload) -> WebhookResult:
        body = json.dumps(payload).encode()
        headers = webhook_headers(self.settings.webhook_secret, f"{path}#{event}", body)
        response = await self.gateway.post(self.gateway.public_url + path, body, headers)
        return WebhookResult.of(payload, response)

    def _new_id(self) -> str:
        return f"{self.id_prefix}{uuid4().hex}"


def _documentation(api: GenericApi) -> dict[str, Any]:
    """Return the documentation that FastAPI cannot derive from a handler that reads the body itself."""
    return {
        "methods": ["POST"],
        "summary": "Send a message",
        "tags": ["generic API"],
        "response_model": None,
        "status_code": HTTPStatus.ACCEPTED,
        "responses": {
            202: {
                "description": "The message is accepted, or was accepted before with the same key",
                "content": {"application/json": {"example": {api.id_field: f"{api.id_prefix}…"}}},
            },
            400: {
                "description": "The message is not valid",
                "content": {"application/json": {"example": {"error": "invalid_message", "message": "…"}}},
            },
        },
        "openapi_extra": {
            "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": api.message_model.model_json_schema()}},
            },
        },
    }


def _error(status: int, code: str, message: str, behaviour: Behaviour) -> Response:
    return make_response(status, {"error": code, "message": message}, behaviour)


def _explain(error: ValueError) -> str:
    """Return the reason why a payload is not valid, in one line."""
    if not isinstance(error, ValidationError):
        return f"not JSON: {error}"
    return "; ".join(
        ": ".join([".".join(map(str, detail["loc"])), detail["msg"]]).removeprefix(": ")
        for detail in error.errors(include_url=False)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
