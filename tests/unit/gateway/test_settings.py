"""The settings of the gateway."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway.settings import GatewaySettings
from shared.providers.base import Provider
from shared.providers.registry import PROVIDERS
from shared.settings import load, read
from tests.unit.gateway.in_memory import make_settings
from tests.webhooks import SIGNED, TOKEN, WEBHOOK_SECRET


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_an_open_gateway_may_listen_on_the_loopback(host: str) -> None:
    assert make_settings(gateway_host=host).gateway_host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gateway.internal"])  # noqa: S104 - refused
@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, "API_KEYS and WEBHOOK_SECRET"),
        ({"api_keys": "shop:right-key-of-shop"}, "WEBHOOK_SECRET"),
        ({"webhook_secret": WEBHOOK_SECRET}, "API_KEYS"),
    ],
)
def test_an_open_gateway_listens_to_other_machines_only_if_that_is_allowed(
    host: str, values: dict[str, str], missing: str
) -> None:
    with pytest.raises(ValidationError, match=f"to listen on {host} without {missing}"):
        make_settings(gateway_host=host, **values)
    allowed = make_settings(gateway_host=host, allow_unauthenticated=True, **values)
    assert allowed.gateway_host == host


def test_a_gateway_with_keys_and_secrets_may_listen_anywhere() -> None:
    settings = make_settings(
        gateway_host="::", api_keys="shop:right-key-of-shop", webhook_secret=WEBHOOK_SECRET
    )

    assert settings.api_keys.caller_of("right-key-of-shop") == ("shop", "write")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("API_KEYS", "topsecret", "API_KEYS: entry 1 is not name:key"),
        ("API_KEYS", "shop:topsecret", "API_KEYS: entry 1 has a key of less than 16 characters"),
        ("API_KEYS", ",", "API_KEYS: has no entries"),
        ("WEBHOOK_SECRET", "topsecret", "WEBHOOK_SECRET: must be whsec_ and base64"),
        ("WEBHOOK_SECRET", "whsec_dG9wc2VjcmV0", "WEBHOOK_SECRET: must be base64 of at least 16 bytes"),
        ("WEBHOOK_SECRET", ",", "WEBHOOK_SECRET: has no entries"),
        ("PUBLIC_BASE_URL", "https://example.com:99999", "PUBLIC_BASE_URL: "),
        ("PUBLIC_BASE_URL", "example.com", "PUBLIC_BASE_URL: is not an http or https URL"),
        ("PUBLIC_BASE_URL", "http://a:se/cret@b", "PUBLIC_BASE_URL: is not an http or https URL"),
        ("GATEWAY_HOST", "::", "ALLOW_UNAUTHENTICATED: must be true to listen on ::"),
        ("DEFAULT_REGION", "XX", "DEFAULT_REGION: must be a country such as US"),
        ("MESSAGE_VALIDITY_HOURS", "0", "MESSAGE_VALIDITY_HOURS: "),
        ("UNSUBSCRIBE_SECRET", "topsecret", "UNSUBSCRIBE_SECRET: "),
    ],
)
def test_an_invalid_setting_ends_the_program_with_a_line(
    name: str,
    value: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env
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


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_secrets_of_providers_are_not_printed(provider: Provider[Any]) -> None:
    urls = dict.fromkeys(
        ("sms_provider_url", "email_provider_url", "twilio_url", "sendgrid_url"), "https://u:topsecret@host"
    )
    settings = repr(read(provider.settings, _env_file=None, sendgrid_api_key="topsecret", **urls, **SIGNED))

    assert TOKEN not in settings
    assert "topsecret" not in settings
    assert WEBHOOK_SECRET.removeprefix("whsec_") not in settings


def test_secrets_are_not_printed() -> None:
    settings = make_settings(
        api_keys="shop:topsecret-topsecret",
        webhook_secret=WEBHOOK_SECRET,
        unsubscribe_secret="a very secret secret",
        database_url="postgresql+asyncpg://u:topsecret@db/d",
        nats_url="nats://u:topsecret@nats",
    )

    assert "topsecret" not in repr(settings)
    assert "very secret" not in repr(settings)
    assert WEBHOOK_SECRET.removeprefix("whsec_") not in repr(settings)
