"""A sender process with invalid settings ends with a line for each fault."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        (
            {"SMS_PROVIDERS": "generic_sms,twilio"},
            ["TWILIO_ACCOUNT_SID is not set", "TWILIO_AUTH_TOKEN is not set"],
        ),
        ({"ROUTES": "@example.com=sendgrid"}, ["SENDGRID_API_KEY is not set"]),
        ({"EMAIL_PROVIDERS": "twilio"}, ["EMAIL_PROVIDERS: 'twilio' is not a provider of email"]),
        ({"NATS_URL": ""}, ["NATS_URL is not set"]),
        (
            {"NATS_URL": "", "RETRY_DELAYS": "soon", "ROUTES": "@example.com=sendgrid"},
            ["NATS_URL is not set", "RETRY_DELAYS: must be a valid number", "SENDGRID_API_KEY is not set"],
        ),
        (
            {"SMS_PROVIDERS": "twilio", "EMAIL_PROVIDERS": "sendgrid", "PUBLIC_BASE_URL": "example.com"},
            [
                "PUBLIC_BASE_URL: is not an http or https URL",
                "TWILIO_ACCOUNT_SID is not set",
                "TWILIO_AUTH_TOKEN is not set",
                "SENDGRID_API_KEY is not set",
            ],
        ),
        # The sender does not use it; the settings of a provider are declared once, for both services.
        ({"WEBHOOK_SECRET": "topsecret"}, ["WEBHOOK_SECRET: must be whsec_ and base64"]),
    ],
)
def test_invalid_settings_are_explained(tmp_path: Path, settings: dict[str, str], faults: list[str]) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "NATS_URL": "nats://127.0.0.1:9",
        **settings,
    }
    process = subprocess.run(
        [sys.executable, "-m", "services.sender"],
        env=environment,
        cwd=tmp_path,  # away from any .env
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 1
    lines = process.stderr.splitlines()
    assert len(lines) == len(faults), process.stderr
    for line, fault in zip(lines, faults, strict=True):
        assert line.startswith(f"sender: {fault}")
