"""`.env.example` has every setting, and shows its default."""

import re
from collections import Counter
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic_settings import BaseSettings

from dev.local_stack.settings import load
from dev.local_stack.settings_check import OTHER_VARIABLES, SETTINGS, known_variables, variables
from services.gateway.settings import GatewaySettings
from services.ingest.settings import IngestSettings
from services.notifier.settings import NotifierSettings
from services.sender.settings import SenderSettings
from shared.bus.provision import ProvisionSettings
from shared.providers.registry import PROVIDERS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / ".env.example").read_text(encoding="utf-8")
LINES = re.findall(r"(?m)^(#?)([A-Z_]+)=(.*)$", TEXT)
SET = {name for comment, name, _ in LINES if not comment}
EXAMPLE = {name: value for _, name, value in LINES}

OF_PROVIDERS = [provider.settings for provider in PROVIDERS.values()]
OF_MOCKS = [kind for kind in SETTINGS if kind.__module__.startswith("mock_providers.")]
NOT_PASSED_ON = {
    "provision": {"LOG_LEVEL", "LOG_FORMAT"},
    # A service gets no credentials that it does not use.
    "gateway": {
        "SMS_PROVIDER_URL",
        "EMAIL_PROVIDER_URL",
        "TWILIO_ACCOUNT_SID",
        "TWILIO_URL",
        "SENDGRID_API_KEY",
        "SENDGRID_URL",
    },
    "sender": {"WEBHOOK_SECRET", "SENDGRID_WEBHOOK_PUBLIC_KEY"},
    "mock-providers": {
        # The ports inside the container are fixed.
        "SMS_PROVIDER_PORT",
        "EMAIL_PROVIDER_PORT",
        # A mock signs whatever it is asked to, so it gets no secrets.
        "WEBHOOK_SECRET",
        "TWILIO_ACCOUNT_SID",
        "TWILIO_AUTH_TOKEN",
        "SENDGRID_API_KEY",
    },
}
DIFFERENT_DEFAULTS = {
    # The mocks accept made-up credentials.
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "SENDGRID_API_KEY",
    # The local stack starts a mock if it is not set.
    "SMS_PROVIDER_URL",
    "EMAIL_PROVIDER_URL",
    # A gateway that is started by itself uses any free port.
    "GATEWAY_HEALTH_PORT",
}
REQUIRED = {"DATABASE_URL": "postgresql+asyncpg://localhost/x", "NATS_URL": "nats://localhost"}


def test_it_has_every_setting_once_and_no_other() -> None:
    assert Counter(name for _, name, _ in LINES) == Counter(known_variables())


def test_it_sets_the_servers_of_docker_compose_and_nothing_else() -> None:
    assert {"DATABASE_URL", "NATS_URL"} == SET
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name in ("POSTGRES_PASSWORD", "NATS_ADMIN_PASSWORD"):
        assert EXAMPLE[name] in EXAMPLE["DATABASE_URL"] + EXAMPLE["NATS_URL"]
        assert f"{name}:-{EXAMPLE[name]}}}" in compose


def test_it_has_what_docker_compose_reads() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", compose))
    assert set(re.findall(r"\$\{([A-Z_]+)", compose)) <= EXAMPLE.keys()
    passed_on = set(re.findall(r"(?m)^ +([A-Z_]+):$", compose))
    assert {name for name in passed_on if not name.startswith("OTEL_")} <= EXAMPLE.keys()
    assert {name: EXAMPLE[name] for name in defaults.keys() & OTHER_VARIABLES} == {
        name: defaults[name] for name in defaults.keys() & OTHER_VARIABLES
    }


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("provision", [ProvisionSettings]),
        ("gateway", [GatewaySettings, *OF_PROVIDERS]),
        ("ingest", [IngestSettings]),
        ("sender", [SenderSettings, *OF_PROVIDERS]),
        ("notifier", [NotifierSettings]),
        ("mock-providers", OF_MOCKS),
    ],
)
def test_docker_compose_passes_on_the_settings_of_a_service(
    service: str, settings: list[type[BaseSettings]]
) -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    (section,) = re.findall(rf"(?ms)^  {service}:\n(.*?)^(?:  )?\w", compose)
    passed_on = set(re.findall(r"(?m)^      ([A-Z_]+):", section))
    wanted = {name for kind in settings for name in variables(kind)}
    assert wanted - NOT_PASSED_ON.get(service, set()) <= passed_on


def test_it_is_a_valid_env_file() -> None:
    assert dotenv_values(ROOT / ".env.example").keys() == SET


@pytest.mark.parametrize("name", sorted(known_variables() - OTHER_VARIABLES - SET))
def test_it_shows_the_default(name: str) -> None:
    shown = [has_default(kind, name, EXAMPLE[name]) for kind in SETTINGS if name in variables(kind)]
    assert all(shown) or (any(shown) and name in DIFFERENT_DEFAULTS)


def has_default(kind: type[BaseSettings], name: str, value: str) -> bool:
    """Return whether the value is the default, or is empty where there is none."""
    field = kind.model_fields[name.lower()]
    if not value:
        return not field.default or field.default_factory is not None
    required = {other: REQUIRED[other] for other in variables(kind) if other in REQUIRED}
    default = getattr(load(kind, required), name.lower())
    return bool(getattr(load(kind, {**required, name: value}), name.lower()) == default)
