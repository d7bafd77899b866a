"""API keys: their settings, and the requests that need one."""

import json
from functools import cache
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from services.gateway.http.auth import ApiKeys
from tests.unit.gateway.in_memory import calling, create_gateway, make_settings
from tests.unit.gateway.requests import SEND_SMS, SMS, problem_of
from tests.webhooks import SIGNED

CLIENTS_KEY = {"authorization": "Bearer right-key-of-shop"}
PLACEHOLDERS = {"{id}": "1", "{address}": "+18045551234"}
WITHOUT_KEY = ("/api/webhooks/", "/unsubscribe/", "/healthz", "/readyz", "/metrics")


@cache
def operations() -> list[tuple[str, str]]:
    """Return the method and path of each operation that a client calls."""
    found = []
    for path, operations in create_gateway().openapi()["paths"].items():
        if not path.startswith(WITHOUT_KEY):
            for name, value in PLACEHOLDERS.items():
                path = path.replace(name, value)  # noqa: PLW2901 - a path with values
            found += [(method.upper(), path) for method in operations]
    return found


async def call(method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - arguments of a request
    async with calling(create_gateway(api_keys="shop:right-key-of-shop")) as client:
        return await client.request(method, path, **request)


def test_a_client_can_have_several_keys() -> None:
    keys = ApiKeys.parse("shop:first-key-of-shop, shop:second-key-of-shop ,crm:a:key:with:colons")

    known = ("first-key-of-shop", "second-key-of-shop", "a:key:with:colons")
    callers = [keys.caller_of(key) for key in (*known, "four", "")]
    assert callers == [("shop", "write"), ("shop", "write"), ("crm", "write"), None, None]


async def test_a_read_only_key_can_read_but_change_nothing() -> None:
    gateway = create_gateway(api_keys="shop:right-key-of-shop", read_only_api_keys="wall:right-key-of-wall")
    headers = {"Authorization": "Bearer right-key-of-wall"}
    async with calling(gateway) as client:
        own = await client.get("/api/api-keys/current", headers=headers)
        listed = await client.get("/api/api-keys", headers=headers)
        refused = await client.post("/api/messages/sms", json={}, headers=headers)
    assert own.json() == {"name": "wall", "access": "read", "playground": False}
    names = [(each["name"], each["access"]) for each in listed.json()["items"]]
    assert names == [("shop", "write"), ("wall", "read")]
    assert (refused.status_code, problem_of(refused)) == (403, "read_only_key")


def test_read_only_keys_need_keys_that_write() -> None:
    with pytest.raises(ValidationError, match="has no effect without API_KEYS"):
        make_settings(read_only_api_keys="wall:right-key-of-wall")


@pytest.mark.parametrize(
    "text",
    [
        *("secretkey", "name:", ":secretkey", "a b:secretkey", "a:secret key", "a:é", "a:secret-of-15-ch"),
        "a:right-key-of-shop,b:right-key-of-shop",
    ],
)
def test_malformed_keys_are_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^entry [12] ") as error:
        ApiKeys.parse(text)

    assert "secret" not in str(error.value)


@pytest.mark.parametrize("text", [",", " , ", " "])
def test_keys_without_any_entry_do_not_open_the_gateway(text: str) -> None:
    with pytest.raises(ValueError, match="has no entries"):
        ApiKeys.parse(text)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic right-key-of-shop"},
        {"authorization": "right-key-of-shop"},
    ],
)
async def test_every_operation_of_clients_needs_a_key(headers: dict[str, str]) -> None:
    refused = 0
    async with calling(create_gateway(api_keys="shop:right-key-of-shop")) as client:
        for method, path in operations():
            body: dict[str, Any] = {} if method in {"GET", "DELETE"} else {"json": {}}
            response = await client.request(method, path, headers=headers, **body)

            assert (response.status_code, problem_of(response)) == (401, "unauthorized"), (method, path)
            assert response.headers["www-authenticate"] == "Bearer"
            refused += 1
    assert refused >= 18


async def test_without_a_key_a_message_is_not_even_parsed() -> None:
    response = await call("POST", SEND_SMS, content=b"{", headers={"content-type": "application/json"})

    assert response.status_code == 401


@pytest.mark.parametrize(
    "authorization", ["Bearer right-key-of-shop", "bearer right-key-of-shop", "BEARER  right-key-of-shop "]
)
async def test_a_valid_key_is_accepted(authorization: str) -> None:
    response = await call("GET", "/api/messages/1", headers={"authorization": authorization})

    assert response.status_code == 404


async def test_a_message_is_accepted_with_a_valid_key() -> None:
    response = await call("POST", SEND_SMS, json=SMS, headers=CLIENTS_KEY)

    assert response.status_code == 202


async def test_a_key_that_is_not_ascii_is_refused() -> None:
    headers = {"authorization": "Bearer räight-key-of-shop".encode("latin-1")}
    response = await call("GET", "/api/messages/1", headers=headers)

    assert response.status_code == 401


async def test_health_needs_no_key() -> None:
    assert (await call("GET", "/healthz")).status_code == 200


def test_the_openapi_document_names_the_credentials_of_each_operation() -> None:
    document = create_gateway(api_keys="shop:right-key-of-shop", **SIGNED).openapi()

    needed = {
        (method.upper(), path): operation.get("security")
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert needed["POST", "/api/messages/sms"] == [{"ApiKey": []}]
    assert needed["POST", "/api/webhooks/sms"] == [{"WebhookSignature": []}]
    assert needed["GET", "/healthz"] == []
    assert all(
        security == [{"ApiKey": []}]
        for (_, path), security in needed.items()
        if not path.startswith(WITHOUT_KEY)
    )


def test_the_openapi_document_of_an_open_gateway_names_no_credentials() -> None:
    document = create_gateway().openapi()
    assert "securitySchemes" not in document["components"]
    assert '"ApiKey"' not in json.dumps(document)
    half_open = create_gateway(webhook_secret=SIGNED["webhook_secret"]).openapi()
    assert '"ApiKey"' not in json.dumps(half_open)
    assert half_open["paths"]["/api/webhooks/sms"]["post"]["security"] == [{"WebhookSignature": []}]
