"""A provider as an application: its APIs, and the controls under `/mock`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, FastAPI, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from mock_providers.backend import Backend, Credentials, Errands
from mock_providers.behaviour import NORMAL, Behaviour, BehaviourSwitch
from mock_providers.contract import Contract
from mock_providers.ledger import Counts, Ledger
from mock_providers.provider import Provider, bare_key
from mock_providers.webhooks import Delivery, Gateway, GatewayUnreachableError, Payload


class Receipt(BaseModel):
    provider_message_id: str
    status: str = Field(examples=["delivered", "undelivered", "failed"])
    error_code: str | int | None = None
    timestamp: str | None = Field(default=None, description="Now, when left out.")


class Stats(BaseModel):
    """Counts of what clients sent: each request is accepted, refused, or the repeat of a key."""

    requests: int
    accepted: int
    refused: int
    repeated_keys: int


def create_app(
    contract: Contract, gateway: Gateway, random: Random, credentials: Credentials | None = None
) -> FastAPI:
    """Build one provider.

    Args:
        contract: Which provider.
        gateway: Where its webhooks go.
        random: Decides which requests a behaviour's `rate` affects.
        credentials: Of the real contract; those that the README names unless given.
    """
    behaviour, ledger, errands = BehaviourSwitch(random), Ledger(), Errands()
    provider = Provider(contract, behaviour, ledger)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await errands.abandon()

    app = FastAPI(title=contract.title, version="1", lifespan=lifespan)
    app.include_router(
        contract.real_api(Backend(behaviour, ledger, gateway, errands, credentials or Credentials()))
    )
    app.add_api_route("/messages", provider.take, **_messages_route(contract))
    app.include_router(_behaviour_routes(contract, behaviour), prefix="/mock/behaviour", tags=["behaviour"])
    app.include_router(_ledger_routes(ledger), prefix="/mock", tags=["what arrived"])
    app.include_router(_webhook_routes(contract, provider, gateway), prefix="/mock", tags=["webhooks"])

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(GatewayUnreachableError)
    async def gateway_unreachable(_request: Request, exc: GatewayUnreachableError) -> Response:
        return JSONResponse(
            {"error": "gateway_unreachable", "message": str(exc)}, status.HTTP_502_BAD_GATEWAY
        )

    @app.exception_handler(ClientDisconnect)
    async def client_left_early(_request: Request, _exc: ClientDisconnect) -> Response:
        """A sender that dies amid its request is no error of ours; nobody reads the answer."""
        return Response(status_code=status.HTTP_400_BAD_REQUEST)

    return app


def _messages_route(contract: Contract) -> dict[str, Any]:
    """How `POST /messages` is routed and documented: FastAPI can't tell, as it reads the body itself."""
    return {
        "methods": ["POST"],
        "summary": "Send a message",
        "tags": ["the provider's API"],
        "response_model": None,
        "status_code": status.HTTP_202_ACCEPTED,
        "responses": {
            202: {
                "description": "Accepted, now or when the key came first",
                "content": {"application/json": {"example": {contract.id_field: f"{contract.id_prefix}…"}}},
            },
            400: {
                "description": "The message can't be used",
                "content": {"application/json": {"example": {"error": "invalid_message", "message": "…"}}},
            },
        },
        "openapi_extra": {
            "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": contract.outbound.model_json_schema()}},
            },
        },
    }


def _behaviour_routes(contract: Contract, behaviour: BehaviourSwitch) -> APIRouter:
    router = APIRouter()

    @router.get("")
    async def behaviour_in_effect() -> Behaviour:
        return behaviour.current

    @router.put("")
    async def change_behaviour(wanted: Behaviour) -> Behaviour:
        if wanted.outcome not in {None, *contract.outcomes}:
            raise RequestValidationError(
                [{"type": "outcome", "loc": ("body", "outcome"), "msg": f"none of {[*contract.outcomes]}"}]
            )
        behaviour.current = wanted
        return wanted

    @router.delete("", status_code=status.HTTP_204_NO_CONTENT)
    async def back_to_normal() -> None:
        behaviour.current = NORMAL

    return router


def _ledger_routes(ledger: Ledger) -> APIRouter:
    router = APIRouter()

    @router.get("/messages")
    async def accepted_messages(idempotency_key: str | None = None) -> Response:
        """What was accepted, the oldest first; with a key, the one message that had it."""
        if key := bare_key(idempotency_key):
            found = ledger.find(key)
            messages = [found] if found else []
        else:
            messages = ledger.messages()
        content = orjson.dumps({"items": messages}, option=orjson.OPT_UTC_Z)
        return Response(content, media_type="application/json")

    @router.delete("/messages", status_code=status.HTTP_204_NO_CONTENT)
    async def forget_messages() -> None:
        """Forget the messages, their keys, and the stats."""
        ledger.clear()

    @router.get("/stats", response_model=Stats)
    async def stats() -> Counts:
        return ledger.counts

    return router


def _webhook_routes(contract: Contract, provider: Provider, gateway: Gateway) -> APIRouter:
    router = APIRouter(responses={502: {"description": "The gateway gave no answer"}})

    @router.post("/inbound")
    async def send_inbound(given: Annotated[Payload, Body(default_factory=dict)]) -> Delivery:
        """Send an inbound message. Fields given go out as they are, the others are filled in."""
        payload: Payload = {
            **contract.inbound_example(given),
            contract.id_field: provider.new_id(),
            "timestamp": _now(),
            **given,
        }
        return await gateway.deliver(contract.webhook_path, str(payload[contract.id_field]), payload)

    @router.post("/receipts")
    async def send_receipt(receipt: Receipt) -> Delivery:
        """Send a delivery receipt, for a message that was accepted or for any other."""
        payload: Payload = {
            contract.id_field: receipt.provider_message_id,
            "status": receipt.status,
            "error_code": receipt.error_code,
            "timestamp": receipt.timestamp or _now(),
        }
        event = f"{receipt.provider_message_id}#{receipt.status}"
        return await gateway.deliver(f"{contract.webhook_path}/status", event, payload)

    return router


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
