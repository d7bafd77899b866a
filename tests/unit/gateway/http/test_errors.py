"""Problem documents."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from fastapi import FastAPI

import services.gateway
from services.gateway.http.errors import add_error_handlers
from services.gateway.http.problem_kinds import PROBLEM_KINDS, ProblemCode
from shared import http_admission, http_server
from shared.errors import BusUnavailableError, DatabaseUnavailableError
from tests.unit.gateway.in_memory import calling
from tests.unit.gateway.requests import SEND_SMS, SMS, faults_of, post_json, problem_of
from tests.webhooks import JSON

GATEWAY = Path(str(services.gateway.__file__)).parent


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", "not_found"),
        ("GET", "/api/messages/", "not_found"),
        ("POST", "/api/messages/sms/", "not_found"),
        ("GET", "/api/messages/1", "message_not_found"),
        ("GET", "/api/messages/%00", "message_not_found"),
        ("DELETE", "/api/messages/1", "message_not_found"),
        ("GET", "/api/conversations/0", "conversation_not_found"),
        ("GET", "/api/conversations/-1", "conversation_not_found"),
        ("GET", "/api/conversations/1.0", "conversation_not_found"),
        ("GET", "/api/conversations/%D9%A1", "conversation_not_found"),
        ("GET", f"/api/conversations/{10**30}", "conversation_not_found"),
        ("GET", f"/api/conversations/{2**63}", "conversation_not_found"),
        ("GET", f"/api/conversations/{2**63}/messages", "conversation_not_found"),
        ("GET", "/api/conversations/garbage/messages", "conversation_not_found"),
        ("GET", "/api/dead-letters/garbage", "dead_letter_not_found"),
        ("GET", "/api/dead-letters/replay", "dead_letter_not_found"),
        ("POST", "/api/dead-letters/garbage/replay", "dead_letter_not_found"),
    ],
)
async def test_nothing_is_found_at_other_paths_and_ids(
    client: httpx.AsyncClient, method: str, path: str, code: str
) -> None:
    response = await client.request(method, path)

    assert (response.status_code, problem_of(response)) == (404, code)
    assert response.json()["errors"] == []
    assert "allow" not in response.headers


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/messages/1", "DELETE, GET, HEAD"),
        ("PUT", "/api/messages", "GET, HEAD"),
        ("PUT", "/api/messages/sms", "POST"),
        ("POST", "/api/messages/fax", "DELETE, GET, HEAD"),
        ("PUT", "/api/webhooks/sms", "POST"),
        ("GET", "/api/webhooks/sms", "POST"),
        ("DELETE", "/api/conversations", "GET, HEAD"),
        ("PUT", "/api/dead-letters/replay", "POST"),
        ("POST", "/api/suppressions/1", "DELETE, PUT"),
    ],
)
async def test_a_405_names_the_allowed_methods(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)

    assert (response.status_code, problem_of(response)) == (405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/conversations?limit=0", "limit"),
        ("/api/conversations?limit=201", "limit"),
        ("/api/conversations?limit=ten", "limit"),
        (f"/api/conversations?limit={10**30}", "limit"),
        ("/api/conversations?channel=fax", "channel"),
        ("/api/conversations?participant=nobody@", "participant"),
        ("/api/conversations?participant=%00", "participant"),
        ("/api/conversations?participant=", "participant"),
        ("/api/conversations?cursor=", "cursor"),
        ("/api/conversations?cursor=garbage", "cursor"),
        ("/api/conversations?cursor=%F0%9F%98%80", "cursor"),
        (f"/api/conversations?cursor={'a' * 5_000}", "cursor"),
        ("/api/conversations/1/messages?limit=-1", "limit"),
        ("/api/conversations/1/messages?cursor=a", "cursor"),
        ("/api/dead-letters?direction=sideways", "direction"),
        ("/api/dead-letters?reason=%00", "reason"),
        ("/api/dead-letters?message_id=5", "message_id"),
        ("/api/dead-letters?state=perhaps", "state"),
        ("/api/dead-letters?cursor=a", "cursor"),
        ("/api/messages?status=perhaps", "status"),
        ("/api/messages?status=scheduled&channel=fax", "channel"),
        ("/api/messages?status=scheduled&cursor=x", "cursor"),
        ("/api/messages?metadata=x", "metadata"),
        ("/api/messages?metadata[]=x", "metadata"),
        ("/api/messages?metadata[order=x", "metadata"),
        ("/api/suppressions?channel=fax", "channel"),
        ("/api/suppressions?address=nobody@", "address"),
        ("/api/suppressions?address=", "address"),
        ("/api/suppressions?cursor=a", "cursor"),
    ],
)
async def test_an_invalid_query_parameter_is_named(client: httpx.AsyncClient, path: str, field: str) -> None:
    response = await client.get(path)

    assert (response.status_code, problem_of(response)) == (422, "invalid_request")
    assert faults_of(response) == {field}


@pytest.fixture
async def failing() -> AsyncIterator[httpx.AsyncClient]:
    errors = {
        "database": DatabaseUnavailableError("10.0.0.1 refuses"),
        "bus": BusUnavailableError("10.0.0.1 refuses"),
        "bug": ZeroDivisionError("10.0.0.1 refuses"),
    }
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/{name}")
    async def fail(name: str) -> None:
        raise errors[name]

    async with calling(app) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/database", 503, "database_unavailable"),
        ("/bus", 503, "bus_unavailable"),
        ("/bug", 500, "internal_error"),
    ],
)
async def test_an_internal_problem_reveals_nothing(
    failing: httpx.AsyncClient, path: str, status: int, code: str
) -> None:
    response = await failing.get(path)

    assert (response.status_code, problem_of(response)) == (status, code)
    assert "10.0.0.1" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)


async def test_the_values_at_fault_are_not_repeated(client: httpx.AsyncClient) -> None:
    response = await post_json(client, SEND_SMS, {**SMS, "to": "topsecret"})

    assert faults_of(response) == {"to"}
    assert "topsecret" not in response.text


@pytest.mark.parametrize("path", [SEND_SMS, "/api/dead-letters/replay"])
async def test_an_error_of_a_body_says_what_is_expected(client: httpx.AsyncClient, path: str) -> None:
    malformed = await client.post(path, content=b"{", headers=JSON)
    no_object = await client.post(path, content=b"[]", headers=JSON)

    assert problem_of(malformed) == "malformed_body"
    assert malformed.json()["detail"].startswith("The body is not JSON: ")
    assert problem_of(no_object) == "invalid_request"
    assert no_object.json()["errors"] == [{"field": "body", "detail": "must be a JSON object"}]


async def test_the_type_of_a_problem_leads_to_a_page_that_explains_it(client: httpx.AsyncClient) -> None:
    problem = (await client.get("/api/messages/1")).json()
    page = await client.get(problem["type"])

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<code>message_not_found</code> (404 Not Found)" in page.text
    assert problem_of(await client.get("/problems/made_up")) == "not_found"
    everything = (await client.get("/problems")).text
    assert all(f"<code>{code}</code>" in everything for code in PROBLEM_KINDS)


def test_every_code_has_a_kind() -> None:
    assert set(PROBLEM_KINDS) == set(get_args(ProblemCode))


def test_each_code_of_a_problem_is_a_literal_in_the_source() -> None:
    literals = set(literals_in_source())

    assert set(get_args(ProblemCode)) <= literals


def literals_in_source() -> Iterator[str]:
    for file in (*GATEWAY.rglob("*.py"), Path(http_server.__file__), Path(http_admission.__file__)):
        if file.name != "problem_kinds.py":
            yield from re.findall(r'"([a-z_]+)"', file.read_text())
