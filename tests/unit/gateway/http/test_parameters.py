from typing import Any
from uuid import UUID

import httpx
import pytest

from services.gateway.http.errors import InvalidRequestError
from services.gateway.http.parameters import parse_address, parse_uuid
from shared.channels import Channel
from tests.unit.gateway.requests import WEBHOOKS, faults_of
from tests.webhooks import GENERIC_SMS_STATUS

KEY = "13db6b6e-2dbd-5c1c-b749-f90205e39fde"


@pytest.mark.parametrize(
    ("text", "channel", "key"),
    [
        ("+18045551234", Channel.SMS, "+18045551234"),
        (" 18045551234", Channel.SMS, "+18045551234"),  # an unescaped + in a query string
        ("804-555-1234", Channel.SMS, "+18045551234"),
        ("12345", Channel.SMS, "12345"),
        ("User@Example.com", Channel.EMAIL, "user@example.com"),
        ("user tag@example.com", Channel.EMAIL, "user+tag@example.com"),
        ("user+tag@example.com", Channel.EMAIL, "user+tag@example.com"),
    ],
)
def test_an_address_is_normalised_as_in_a_message(text: str, channel: Channel, key: str) -> None:
    assert parse_address(text, "participant", default_region="US") == (channel, key)


@pytest.mark.parametrize("text", ["", " ", "+", "@", "a@", "\0"])
def test_the_parameter_of_an_invalid_address_is_named(text: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        parse_address(text, "participant", default_region="US")

    assert [fault.field for fault in error.value.faults] == ["participant"]


@pytest.mark.parametrize("text", [KEY, KEY.upper(), KEY.replace("-", "")])
def test_an_id_has_several_spellings(text: str) -> None:
    assert parse_uuid(text) == UUID(KEY)


@pytest.mark.parametrize("text", ["", "1", "\0", KEY + "0", KEY[:-1]])
def test_any_other_text_is_not_an_id(text: str) -> None:
    assert parse_uuid(text) is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/messages/1?x"),
        ("DELETE", "/api/messages/1?x=1"),
        ("POST", "/api/messages/sms?x=1&x=2"),
        ("GET", "/api/messages?status=scheduled&x=1"),
        ("GET", "/api/conversations?limit=5&x=1"),
        ("GET", "/api/conversations/1/messages?x=1"),
        ("POST", "/api/dead-letters/replay?x=1"),
        ("PUT", "/api/suppressions/12345?sender=%2B12016661234&x=1"),
    ],
)
async def test_an_unknown_query_parameter_is_refused(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    body: dict[str, Any] = {"json": {}} if method in {"POST", "PUT"} else {}
    response = await client.request(method, path, **body)

    assert (response.status_code, faults_of(response)) == (422, {"x"})


async def test_webhooks_and_health_checks_may_have_any_parameter(client: httpx.AsyncClient) -> None:
    path, body = GENERIC_SMS_STATUS, WEBHOOKS[GENERIC_SMS_STATUS]

    assert (await client.post(f"{path}?token=1", json=body)).status_code == 200
    assert (await client.get("/healthz?x=1")).status_code == 200
