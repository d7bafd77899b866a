"""Paths with a version, HEAD, and web pages of other origins."""

import httpx
import pytest
from pydantic import ValidationError

from tests.unit.gateway.in_memory import calling, create_gateway, make_settings
from tests.unit.gateway.requests import SEND_SMS, SMS, post_json, problem_of
from tests.webhooks import GENERIC_SMS, SIGNED, STATUS, TWILIO_STATUS, by_twilio


async def test_every_path_of_the_api_has_a_version_too(client: httpx.AsyncClient) -> None:
    accepted = await post_json(client, "/api/v1/messages/sms", SMS)

    assert (accepted.status_code, accepted.headers["location"][:14]) == (202, "/api/messages/")
    assert problem_of(await client.get("/api/v1/messages/1")) == "message_not_found"
    assert problem_of(await client.get("/api/v2/messages/1")) == "not_found"


async def test_head_is_answered_as_get_without_the_body(client: httpx.AsyncClient) -> None:
    for path in ("/api/messages/1", "/healthz", "/docs", "/openapi.json"):
        got, head = await client.get(path), await client.head(path)

        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    assert (await client.head(GENERIC_SMS)).status_code == 405


async def test_a_webhook_is_signed_for_the_path_that_was_called() -> None:
    path = TWILIO_STATUS.replace("/api/", "/api/v1/")
    async with calling(create_gateway(**SIGNED)) as client:
        assert (await client.post(path, **by_twilio(path, STATUS))).status_code == 204
        assert (await client.post(path, **by_twilio(TWILIO_STATUS, STATUS))).status_code == 403


async def test_only_allowed_origins_may_call_the_api_from_a_browser() -> None:
    ours, others = {"origin": "https://app.example.com"}, {"origin": "https://example.net"}
    async with calling(create_gateway(cors_origins="https://app.example.com")) as client:
        preflight = {**ours, "access-control-request-method": "POST"}
        allowed = await client.options(SEND_SMS, headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == ours["origin"]

        refused = await client.get("/api/messages/1", headers=ours)
        assert refused.headers["access-control-allow-origin"] == ours["origin"]
        assert "X-Request-Id" in refused.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in (await client.get("/docs", headers=others)).headers
    async with calling(create_gateway()) as client:
        assert "access-control-allow-origin" not in (await client.get("/docs", headers=ours)).headers
        assert (await client.options(SEND_SMS, headers=preflight)).status_code == 405


@pytest.mark.parametrize("origins", ["app.example.com", "https://app.example.com/", "https://a b"])
def test_an_origin_that_no_browser_sends_is_refused(origins: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin"):
        make_settings(cors_origins=origins)
