"""The validation of requests about dead letters."""

from typing import Any

import httpx
import pytest

from tests.unit.gateway.requests import RESOLUTIONS, faults_of, post_json, problem_of
from tests.webhooks import JSON


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("replay", {}, "body"),
        ("replay", {"all": True, "filter": {"channel": "sms"}}, "body"),
        ("replay", {"all": False}, "body"),
        ("replay", {"filter": {}}, "filter"),
        ("replay", {"filter": []}, "filter"),
        ("replay", {"filter": {"channel": None}}, "filter"),
        ("replay", {"filter": {"channel": "fax"}}, "filter.channel"),
        ("replay", {"filter": {"direction": "sideways"}}, "filter.direction"),
        ("replay", {"filter": {"message_id": "5"}}, "filter.message_id"),
        ("replay", {"filter": {"reason": ""}}, "filter.reason"),
        ("replay", {"filter": {"state": "replayed"}}, "filter.state"),
        ("replay", {"filter": {"channel": "sms"}, "limit": 0}, "limit"),
        ("replay", {"filter": {"channel": "sms"}, "limit": 1_001}, "limit"),
        ("replay", {"filter": {"reason": "nul \0"}}, "filter.reason"),
        ("replay", {"filter": {"channel": "sms"}, "limit": "ten"}, "limit"),
        ("replay", {"filter": {"channel": "sms"}, "limit": "10"}, "limit"),
        ("replay", {"filter": {"channel": "sms"}, "cursor": "garbage"}, "cursor"),
        ("replay", {"filter": {"channel": "sms"}, "cursor": 5}, "cursor"),
        ("replay", {"all": True, "reason": "no reason is needed"}, "reason"),
        ("discard", {"all": True}, "reason"),
        ("discard", {"all": True, "reason": None}, "reason"),
        ("discard", {"all": True, "reason": ""}, "reason"),
        ("discard", {"all": True, "reason": " "}, "reason"),
        ("discard", {"all": True, "reason": "nul \0"}, "reason"),
        ("discard", {"all": True, "reason": "lone \ud800 surrogate"}, "reason"),
        ("discard", {"all": True, "reason": "x" * 1_001}, "reason"),
        ("discard", {"filter": {"channel": "sms", "reason": "http_500"}}, "reason"),
    ],
)
async def test_an_invalid_field_of_a_resolution_is_named(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], field: str
) -> None:
    response = await post_json(client, f"/api/dead-letters/{path}", body)

    assert (response.status_code, problem_of(response)) == (422, "invalid_request")
    assert faults_of(response) == {field}


@pytest.mark.parametrize("path", RESOLUTIONS)
@pytest.mark.parametrize("value", [None, [], "text", 5, True])
async def test_the_body_must_be_an_object(client: httpx.AsyncClient, path: str, value: object) -> None:
    response = await post_json(client, path, value)

    assert response.status_code == 422
    assert faults_of(response) == {"body"}


@pytest.mark.parametrize("path", RESOLUTIONS)
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'all': true}",
        b'{"reason": "\xff"}',
        b'{"limit": 1' + b"0" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    ],
)
async def test_malformed_json_is_refused(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    response = await client.post(path, content=body, headers=JSON)

    assert (response.status_code, problem_of(response)) == (400, "malformed_body")


@pytest.mark.parametrize("path", RESOLUTIONS)
async def test_a_missing_body_is_named(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, headers=JSON)

    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "body", "detail": "is required"}]
