"""Keys of clients, signatures of providers, and what is left open without them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from services.gateway.app import create_app
from services.gateway.http.auth import ApiKeys, WebhookSecrets
from services.gateway.settings import GatewaySettings
from shared.settings import load

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_c2VjcmV0cyBhcmUgc2VjcmV0"
JSON = {"content-type": "application/json"}


def make_settings(**values: Any) -> GatewaySettings:  # noqa: ANN401 - any setting
    required = {"nats_url": "nats://unused", "database_url": "postgresql+asyncpg://unused"}
    return GatewaySettings(_env_file=None, **{**required, **values})


async def call(settings: GatewaySettings, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401
    """Call a gateway with nothing behind it, where being let in ends in a 4xx of another kind."""
    app = create_app(settings)
    app.state.gateway = SimpleNamespace(default_region="US")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.request(method, path, **more)


def signature(body: bytes, secret: str = SECRET, age: timedelta = timedelta(0)) -> dict[str, str]:
    moment = datetime.now(UTC) - age
    return {
        **JSON,
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", moment, body.decode()),
    }


def test_a_client_may_have_several_keys() -> None:
    keys = ApiKeys.parse("shop:one, shop:two ,crm:three:with:colons")

    clients = [keys.client_of(key) for key in ("one", "two", "three:with:colons", "four", "")]
    assert clients == ["shop", "shop", "crm", None, None]


@pytest.mark.parametrize(
    "text", ["secretkey", "name:", ":secretkey", "a b:secretkey", "a:secret key", "a:é", "a:k,b:k"]
)
def test_malformed_keys_are_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^entry [12] ") as error:
        ApiKeys.parse(text)

    assert "secret" not in str(error.value)


@pytest.mark.parametrize("text", ["secret", "whsec_", "whsec_*", "whsec_a", f"{SECRET} secret", "c2VjcmV0"])
def test_malformed_secrets_are_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be whsec_ and base64$"):
        WebhookSecrets.parse(text)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/messages/sms"),
        ("POST", "/api/messages/email"),
        ("GET", "/api/messages/1"),
        ("GET", "/api/conversations"),
        ("GET", "/api/conversations/1"),
        ("GET", "/api/conversations/1/messages"),
        ("GET", "/api/dead-letters"),
        ("GET", "/api/dead-letters/1"),
        ("POST", "/api/dead-letters/1/replay"),
        ("POST", "/api/dead-letters/1/discard"),
        ("POST", "/api/dead-letters/replay"),
        ("POST", "/api/dead-letters/discard"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic right"}, {"authorization": "right"}],
)
async def test_clients_need_a_key(method: str, path: str, headers: dict[str, str]) -> None:
    response = await call(make_settings(api_keys="shop:right"), method, path, headers=headers)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("authorization", ["Bearer right", "bearer right", "BEARER  right "])
async def test_a_key_lets_in(authorization: str) -> None:
    settings = make_settings(api_keys="shop:right")
    response = await call(settings, "GET", "/api/messages/1", headers={"authorization": authorization})

    assert response.status_code == 404


async def test_a_key_that_is_not_ascii_is_no_key() -> None:
    headers = {"authorization": "Bearer räight".encode("latin-1")}
    response = await call(make_settings(api_keys="shop:right"), "GET", "/api/messages/1", headers=headers)

    assert response.status_code == 401


@pytest.mark.parametrize("path", ["sms", "email", "sms/status", "email/status"])
async def test_webhooks_need_a_signature(path: str) -> None:
    settings = make_settings(webhook_secret=SECRET)
    response = await call(settings, "POST", f"/api/webhooks/{path}", content=b"{}", headers=JSON)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "StandardWebhooks"


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
async def test_a_signature_by_any_of_the_secrets_lets_in(secret: str) -> None:
    settings = make_settings(webhook_secret=f"{SECRET},{OTHER_SECRET}")
    headers = signature(b"{}", secret)
    response = await call(settings, "POST", "/api/webhooks/sms", content=b"{}", headers=headers)

    assert response.status_code == 422


@pytest.mark.parametrize(
    ("body", "secret", "age"),
    [
        (b'{"another": "body"}', SECRET, timedelta(0)),
        (b"{}", OTHER_SECRET, timedelta(0)),
        (b"{}", SECRET, timedelta(minutes=6)),
        (b"{}", SECRET, timedelta(minutes=-6)),
    ],
)
async def test_a_signature_of_something_else_does_not(body: bytes, secret: str, age: timedelta) -> None:
    settings = make_settings(webhook_secret=SECRET)
    headers = signature(body, secret, age)
    response = await call(settings, "POST", "/api/webhooks/sms", content=b"{}", headers=headers)

    assert response.status_code == 401


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
        {"webhook-signature": ""},
    ],
)
async def test_a_malformed_signature_does_not(header: dict[str, str]) -> None:
    settings = make_settings(webhook_secret=SECRET)
    headers = {**signature(b"{}"), **header}
    response = await call(settings, "POST", "/api/webhooks/sms", content=b"{}", headers=headers)

    assert response.status_code == 401


async def test_a_body_that_is_no_text_has_no_valid_signature() -> None:
    settings = make_settings(webhook_secret=SECRET)
    response = await call(settings, "POST", "/api/webhooks/sms", content=b"\xff", headers=signature(b"{}"))

    assert response.status_code == 401


async def test_the_document_tells_what_is_needed() -> None:
    closed = create_app(make_settings(api_keys="shop:right", webhook_secret=SECRET)).openapi()
    open_ = create_app(make_settings()).openapi()

    assert closed["paths"]["/api/messages/sms"]["post"]["security"] == [{"ApiKey": []}]
    assert closed["paths"]["/api/webhooks/sms"]["post"]["security"] == [{"WebhookSignature": []}]
    assert "security" not in json.dumps(open_)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_an_open_gateway_may_listen_on_the_loopback(host: str) -> None:
    assert make_settings(gateway_host=host).gateway_host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gateway.internal"])  # noqa: S104 - that is the point
@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, "API_KEYS and WEBHOOK_SECRET"),
        ({"api_keys": "shop:right"}, "WEBHOOK_SECRET"),
        ({"webhook_secret": SECRET}, "API_KEYS"),
    ],
)
def test_an_open_gateway_listens_to_nobody_else(host: str, values: dict[str, str], missing: str) -> None:
    with pytest.raises(ValidationError, match=f"to listen on {host} without {missing}"):
        make_settings(gateway_host=host, **values)
    allowed = make_settings(gateway_host=host, allow_unauthenticated=True, **values)
    assert allowed.gateway_host == host


def test_a_guarded_gateway_may_listen_anywhere() -> None:
    settings = make_settings(gateway_host="::", api_keys="shop:right", webhook_secret=SECRET)

    assert settings.api_keys.client_of("right") == "shop"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("API_KEYS", "topsecret", "API_KEYS: entry 1 is not name:key"),
        ("WEBHOOK_SECRET", "topsecret", "WEBHOOK_SECRET: must be whsec_ and base64"),
        ("TWILIO_AUTH_TOKEN", "topsecret", "PUBLIC_BASE_URL: must be set along with TWILIO_AUTH_TOKEN"),
        ("PUBLIC_BASE_URL", "https://example.com:99999", "PUBLIC_BASE_URL: "),
        ("PUBLIC_BASE_URL", "example.com", "PUBLIC_BASE_URL: is not an http or https URL"),
        ("PUBLIC_BASE_URL", "http://a:se/cret@b", "PUBLIC_BASE_URL: is not an http or https URL"),
        ("SENDGRID_WEBHOOK_PUBLIC_KEY", "topsecret", "SENDGRID_WEBHOOK_PUBLIC_KEY: must be a public key"),
        ("GATEWAY_HOST", "::", "ALLOW_UNAUTHENTICATED: must be true to listen on ::"),
        ("DEFAULT_REGION", "XX", "DEFAULT_REGION: must be a country such as US"),
        ("MESSAGE_VALIDITY_HOURS", "0", "MESSAGE_VALIDITY_HOURS: "),
    ],
)
def test_a_wrong_setting_ends_the_program_with_a_line(
    name: str,
    value: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # away from any .env
    monkeypatch.setenv("NATS_URL", "nats://unused")
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://unused")
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as end:
        load(GatewaySettings, program="gateway")

    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"gateway: {complaint}")
    assert "topsecret" not in lines[0]


def test_secrets_are_not_printed() -> None:
    settings = make_settings(api_keys="shop:topsecret", webhook_secret=SECRET)

    assert "topsecret" not in repr(settings)
    assert SECRET.removeprefix("whsec_") not in repr(settings)
