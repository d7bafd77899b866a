"""The access to webhooks: some are open, and others need a signature."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import REGISTRY

from shared.providers.registry import PROVIDERS
from tests.unit.gateway.in_memory import calling, create_gateway
from tests.unit.gateway.requests import problem_of
from tests.unit.gateway.webhooks.posts import (
    GENERIC,
    PATHS,
    SENDGRID,
    SIGNATURES,
    TWILIO,
    signed,
    unsigned,
    with_header,
)
from tests.webhooks import (
    DELIVERED,
    GENERIC_SMS,
    JSON,
    MULTIPART,
    PUBLIC_KEY,
    PUBLIC_URL,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SIGNED,
    SMS,
    STATUS,
    TOKEN,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    WEBHOOK_SECRET,
    by_generic,
    by_sendgrid,
    by_twilio,
    events,
)

OTHER_SECRET = "whsec_c2VjcmV0cyBhcmUgc2VjcmV0"
OTHER_KEY = ec.derive_private_key(7, ec.SECP256R1())
MALFORMED = ("", "*", "a", "é", "AAAA", "MAYCAQECAQE=", "A" * 5_000)


async def post(path: str, request: dict[str, Any], **settings: Any) -> httpx.Response:  # noqa: ANN401
    """Post to a gateway that verifies the signatures of all providers, or to one with other settings."""
    app = create_gateway(clock=lambda: datetime.now(UTC), **(settings or SIGNED))
    async with calling(app) as client:
        return await client.post(path, **request)


def refusals(path: str, reason: str) -> float:
    labels = {"route": path, "reason": reason}
    return REGISTRY.get_sample_value("messaging_refused_total", labels) or 0


def assert_refused(path: str, response: httpx.Response) -> None:
    """Check that the generic providers are challenged, and the others refused."""
    if path in GENERIC:
        assert (response.status_code, problem_of(response)) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "StandardWebhooks"
    else:
        assert (response.status_code, problem_of(response)) == (403, "signature_refused")
        assert "www-authenticate" not in response.headers


def test_every_webhook_of_a_provider_is_tested_here() -> None:
    webhooks = {f"/api/webhooks/{each.path}" for provider in PROVIDERS.values() for each in provider.webhooks}
    assert webhooks == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
async def test_a_signed_webhook_is_accepted(path: str) -> None:
    assert (await post(path, signed(path))).is_success


@pytest.mark.parametrize("path", GENERIC)
@pytest.mark.parametrize("content_type", ["", "text/plain", "text/json", "application/x-www-form-urlencoded"])
async def test_a_signed_webhook_is_accepted_whatever_its_content_type(path: str, content_type: str) -> None:
    response = await post(path, with_header(signed(path), "content-type", content_type))

    assert response.is_success
    assert "dead_letter_id" not in response.text


@pytest.mark.parametrize("path", PATHS)
async def test_an_unsigned_webhook_is_refused_and_counted(path: str) -> None:
    before = refusals(path, "unsigned")
    response = await post(path, unsigned(path))

    assert_refused(path, response)
    assert SIGNATURES[path] in response.json()["detail"].lower()
    assert refusals(path, "unsigned") == before + 1


def wrongly_signed() -> Iterator[tuple[str, dict[str, Any]]]:
    yield GENERIC_SMS, by_generic(b"{}", secret=OTHER_SECRET)
    yield GENERIC_SMS, {**by_generic(b'{"another": "body"}'), "content": b"{}"}
    yield GENERIC_SMS, by_generic(b"{}", age=timedelta(minutes=6))
    yield GENERIC_SMS, by_generic(b"{}", age=timedelta(minutes=-6))
    yield GENERIC_SMS, {**by_generic(b"{}"), "content": b"\xff"}
    yield TWILIO_MESSAGES, by_twilio(TWILIO_MESSAGES, SMS, token="another")
    yield TWILIO_MESSAGES, by_twilio(TWILIO_STATUS, SMS)
    yield TWILIO_STATUS, by_twilio(TWILIO_MESSAGES, STATUS)
    yield SENDGRID_EVENTS, by_sendgrid(events(DELIVERED), JSON, key=OTHER_KEY)
    yield SENDGRID_INBOUND, by_sendgrid(b"\xff", MULTIPART, key=OTHER_KEY)
    for path in PATHS:
        for signature in MALFORMED:
            yield path, with_header(signed(path), SIGNATURES[path], signature)


async def test_a_wrong_signature_is_refused_and_counted() -> None:
    async with calling(create_gateway(clock=lambda: datetime.now(UTC), **SIGNED)) as client:
        for path, request in wrongly_signed():
            before = refusals(path, "wrong_signature")
            response = await client.post(path, **request)

            assert_refused(path, response)
            assert refusals(path, "wrong_signature") == before + 1, request


@pytest.mark.parametrize(
    "header",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": "nan"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,*"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": "v2,abcd"},
    ],
)
async def test_a_malformed_header_of_a_generic_webhook_is_refused(header: dict[str, str]) -> None:
    request = by_generic(b"{}")
    response = await post(GENERIC_SMS, {**request, "headers": {**request["headers"], **header}})

    assert_refused(GENERIC_SMS, response)


@pytest.mark.parametrize("path", SENDGRID)
@pytest.mark.parametrize("age", [-310, 310])
async def test_an_old_signature_of_sendgrid_is_refused_and_counted(path: str, age: int) -> None:
    before = refusals(path, "expired")
    request = unsigned(path)
    response = await post(path, by_sendgrid(request["content"], request["headers"], age=age))

    assert_refused(path, response)
    assert refusals(path, "expired") == before + 1


@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, OTHER_SECRET])
async def test_a_signature_by_any_of_several_secrets_is_accepted(secret: str) -> None:
    settings = {"webhook_secret": f"{WEBHOOK_SECRET},{OTHER_SECRET}"}
    request = by_generic(unsigned(GENERIC_SMS)["content"], secret=secret)

    assert (await post(GENERIC_SMS, request, **settings)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"x-forwarded-host": "evil.example"},
        {"forwarded": "host=evil.example;proto=http"},
    ],
)
async def test_the_headers_do_not_determine_the_signed_url(headers: dict[str, str]) -> None:
    assert (await post(TWILIO_MESSAGES, by_twilio(TWILIO_MESSAGES, SMS, **headers))).status_code == 200


TWILIO_SETTINGS = {"twilio_auth_token": TOKEN, "public_base_url": PUBLIC_URL}


@pytest.mark.parametrize(
    ("settings", "open_"),
    [
        ({}, PATHS),
        ({"webhook_secret": WEBHOOK_SECRET}, ()),
        (TWILIO_SETTINGS, (*GENERIC, *SENDGRID)),
        ({"sendgrid_webhook_public_key": PUBLIC_KEY}, (*GENERIC, *TWILIO)),
        ({"webhook_secret": WEBHOOK_SECRET, **TWILIO_SETTINGS}, ()),
        (SIGNED, ()),
    ],
)
async def test_webhooks_without_a_secret_are_open_unless_there_is_a_webhook_secret(
    settings: dict[str, Any], open_: tuple[str, ...]
) -> None:
    async with calling(create_gateway(**settings)) as client:
        for path in PATHS:
            response = await client.post(path, **unsigned(path))
            if path in open_:
                assert response.is_success, path
            else:
                assert_refused(path, response)


@pytest.mark.parametrize("path", [*TWILIO, *SENDGRID])
async def test_a_signature_that_cannot_be_verified_is_refused_and_counted(path: str) -> None:
    before = refusals(path, "no_secret")
    response = await post(path, signed(path), webhook_secret=WEBHOOK_SECRET)

    assert_refused(path, response)
    assert response.json()["detail"].startswith("This gateway is not configured to verify X-Twilio-")
    assert refusals(path, "no_secret") == before + 1


async def test_a_webhook_needs_no_api_key() -> None:
    assert (
        await post(GENERIC_SMS, unsigned(GENERIC_SMS), api_keys="shop:right-key-of-shop")
    ).status_code == 200


def test_the_openapi_document_names_the_signatures() -> None:
    document = create_gateway(**SIGNED).openapi()

    schemes = {path: [*each] for path in PATHS for each in document["paths"][path]["post"]["security"]}
    assert schemes == {
        **{path: ["WebhookSignature"] for path in GENERIC},
        **{path: ["TwilioSignature"] for path in TWILIO},
        **{path: ["SendgridSignature"] for path in SENDGRID},
    }
    described = document["components"]["securitySchemes"]
    assert described["TwilioSignature"]["name"] == "X-Twilio-Signature"
    assert {scheme["in"] for scheme in described.values()} == {"header"}


def refused_by_headers() -> Iterator[tuple[str, dict[str, Any]]]:
    yield GENERIC_SMS, by_generic(b"{}", age=timedelta(minutes=6))
    yield SENDGRID_INBOUND, by_sendgrid(b"", MULTIPART, age=310)
    for path in PATHS:
        yield path, with_header(signed(path), SIGNATURES[path], "made up")


async def test_a_body_is_not_read_if_the_headers_are_not_genuine() -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body is read")
        yield b""

    for path, request in refused_by_headers():
        assert_refused(path, await post(path, {**request, "content": unread()}))
