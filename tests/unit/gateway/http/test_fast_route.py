"""The route of sends, which bypasses FastAPI's dependency solver."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from pydantic import BaseModel, Field

from services.gateway.http.auth import ApiKeys, Caller
from services.gateway.http.errors import ConflictError, add_error_handlers
from services.gateway.http.fast_route import FastRoute
from services.gateway.messages.routes import sending_router
from shared.validation import Text
from tests.unit.gateway.in_memory import calling
from tests.unit.gateway.requests import SENDS, faults_of, problem_of
from tests.webhooks import JSON

KEY = {"authorization": "Bearer right-key-of-shop"}


class Order(BaseModel):
    item: Text = Field(alias="for")
    count: int = Field(default=1, ge=1)


class Receipt(BaseModel):
    item: str = Field(alias="for", serialization_alias="for")
    caller: str


async def language(request: Request, _: Annotated[str | None, Header(alias="Accept-Language")] = None) -> str:
    return request.headers.get("accept-language", "en")


async def forbid_too_many(request: Request) -> None:
    if "x-too-many" in request.headers:
        raise ConflictError("nothing_to_replay", "There are too many")


router = APIRouter(route_class=FastRoute, dependencies=[Depends(forbid_too_many)])


@router.post("/orders", status_code=201)
async def create_order(
    order: Order, caller: Caller, response: Response, language: Annotated[str, Depends(language)]
) -> Receipt:
    """Create an order."""
    response.headers["Content-Language"] = language
    return Receipt(**{"for": order.item}, caller=caller)


@pytest.fixture
def orders() -> FastAPI:
    app = FastAPI()
    app.state.api_keys = ApiKeys.parse("shop:right-key-of-shop")
    app.state.default_region = "US"
    app.include_router(router)
    add_error_handlers(app)
    return app


@pytest.fixture
async def shop(orders: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(orders) as client:
        yield client


async def test_the_handler_gets_the_arguments_of_its_signature(shop: httpx.AsyncClient) -> None:
    headers = {**KEY, "accept-language": "de"}
    response = await shop.post("/orders", json={"for": "Zoë"}, headers=headers)

    assert (response.status_code, response.json()) == (201, {"for": "Zoë", "caller": "shop"})
    assert response.headers["content-language"] == "de"
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)


async def test_its_dependencies_come_before_the_body(shop: httpx.AsyncClient) -> None:
    assert (await shop.post("/orders", content=b"{", headers=JSON)).status_code == 401
    refused = await shop.post("/orders", content=b"{", headers={**KEY, "x-too-many": "1"})
    assert refused.status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "faults"),
    [
        (b"", 400, set()),
        (b"{", 400, set()),
        (b"[]", 422, {"body"}),
        (b"{}", 422, {"for"}),
        (b'{"for": 5, "count": 0}', 422, {"for", "count"}),
        (rb'{"for": "\ud800"}', 422, {"for"}),
    ],
)
async def test_an_invalid_body_is_refused(
    shop: httpx.AsyncClient, body: bytes, status: int, faults: set[str]
) -> None:
    response = await shop.post("/orders", content=body, headers={**KEY, **JSON})

    assert (response.status_code, faults_of(response)) == (status, faults)


async def test_another_method_is_refused(shop: httpx.AsyncClient) -> None:
    assert problem_of(await shop.get("/orders")) == "method_not_allowed"


def test_it_is_documented_as_any_other_route(orders: FastAPI) -> None:
    ordinary = FastAPI()
    ordinary.post("/orders", status_code=201, dependencies=[Depends(forbid_too_many)])(create_order)

    documented = orders.openapi()
    assert documented["paths"] == ordinary.openapi()["paths"]
    operation = documented["paths"]["/orders"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Order"}
    assert operation["security"] == [{"ApiKey": []}]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["Accept-Language"]


def test_only_sends_use_it() -> None:
    fast = {route.path for route in sending_router.routes if isinstance(route, FastRoute)}

    assert fast == {*SENDS, "/api/messages/batch"}
