"""The ids of requests."""

import httpx
import pytest
from fastapi import FastAPI
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tests.unit.gateway.in_memory import calling
from tests.unit.gateway.requests import SEND_SMS, SMS, post_json


@pytest.mark.parametrize("given", ["a", "01J9ZK:7f/3+b=@-_.x", "x" * 128])
async def test_the_id_of_the_client_is_returned(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/api/messages/1", headers={"x-request-id": given})

    assert (response.headers["x-request-id"], response.json()["request_id"]) == (given, given)


@pytest.mark.parametrize("given", [None, "", "a b", "é", "a,b", "<b>", "x" * 129])
async def test_a_missing_or_malformed_id_is_replaced(client: httpx.AsyncClient, given: str | None) -> None:
    headers = [] if given is None else [(b"x-request-id", given.encode())]
    ids = {(await client.get("/healthz", headers=headers)).headers["x-request-id"] for _ in range(2)}

    assert len(ids) == 2
    assert given not in ids


async def test_the_log_has_the_id(client: httpx.AsyncClient) -> None:
    with capture_logs(processors=[merge_contextvars]) as entries:
        await client.post(SEND_SMS, json=SMS, headers={"x-request-id": "request-7"})

    assert {(entry["event"], entry["request_id"]) for entry in entries} == {("message_accepted", "request-7")}


async def test_an_unexpected_error_has_an_id(app: FastAPI) -> None:
    app.state.services = None
    async with calling(app) as client:
        response = await post_json(client, SEND_SMS, SMS)

    assert response.status_code == 500
    assert response.headers["x-request-id"] == response.json()["request_id"]
