"""A gateway with invalid settings ends with a line for each fault."""

from pathlib import Path

import pytest

from services.gateway.__main__ import main


@pytest.mark.parametrize(
    ("variables", "faults"),
    [
        (
            {"SENDGRID_WEBHOOK_PUBLIC_KEY": "topsecret", "TWILIO_AUTH_TOKEN": "topsecret-topsecret"},
            [
                "PUBLIC_BASE_URL must be set along with TWILIO_AUTH_TOKEN: Twilio signs the URL",
                "SENDGRID_WEBHOOK_PUBLIC_KEY: must be a public key on the curve P-256, in base64",
            ],
        ),
        (
            {"GATEWAY_PORT": "abc", "PUBLIC_BASE_URL": "example.com", "TWILIO_URL": "ftp://twilio"},
            [
                "PUBLIC_BASE_URL: is not an http or https URL",
                "GATEWAY_PORT: must be a valid integer, not 'abc'",
                "TWILIO_URL: is not an http or https URL",
            ],
        ),
        (
            {"SENDGRID_API_KEY": "top secret", "WEBHOOK_SECRET": "topsecret"},
            [
                "WEBHOOK_SECRET: must be whsec_ and base64",
                "SENDGRID_API_KEY: is empty, or contains characters that are not allowed in credentials",
            ],
        ),
        (
            {"GATEWAY_PORT": "abc", "GATEWAY_HOST": "0.0.0.0", "API_KEYS": "topsecret"},  # noqa: S104 - refused
            [
                "GATEWAY_PORT: must be a valid integer, not 'abc'",
                "API_KEYS: entry 1 is not name:key",
                "ALLOW_UNAUTHENTICATED: must be true to listen on 0.0.0.0 without WEBHOOK_SECRET",
            ],
        ),
    ],
    ids=[
        "two providers",
        "the gateway and a provider",
        "the half of a provider that sends",
        "an open gateway",
    ],
)
def test_all_faults_are_reported_and_each_once(
    variables: dict[str, str],
    faults: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env
    needed = {"NATS_URL": "nats://unused", "DATABASE_URL": "postgresql+asyncpg://unused"}
    for name, value in {**needed, **variables}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines() == [f"gateway: {fault}" for fault in faults]
