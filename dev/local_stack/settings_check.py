"""Checks the settings of everything that `make run` starts, before it starts anything."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial

from pydantic_settings import BaseSettings

from dev.local_stack.errors import StackError
from dev.local_stack.mocks import missing_urls
from dev.local_stack.settings import LocalStackSettings, load, values_of
from mock_providers import registry
from mock_providers.settings import Settings as MockProviderSettings
from services.gateway.settings import GatewaySettings
from services.ingest.settings import IngestSettings
from services.notifier.settings import NotifierSettings
from services.sender.settings import SenderSettings
from shared.bus.provision import ProvisionSettings
from shared.providers.registry import PROVIDERS, create_adapter, create_verifier
from shared.settings import SettingsError, collect

SETTINGS: tuple[type[BaseSettings], ...] = (
    LocalStackSettings,
    GatewaySettings,
    IngestSettings,
    SenderSettings,
    NotifierSettings,
    ProvisionSettings,
    MockProviderSettings,
    *dict.fromkeys(api.settings_class for channel in (registry.SMS, registry.EMAIL) for api in channel.apis),
    *dict.fromkeys(provider.settings for provider in PROVIDERS.values()),
)
"""All settings of the project."""

OTHER_VARIABLES = frozenset(
    {
        # docker-compose.yml
        "POSTGRES_PASSWORD",
        "POSTGRES_GATEWAY_PASSWORD",
        "POSTGRES_INGEST_PASSWORD",
        "POSTGRES_NOTIFIER_PASSWORD",
        "NATS_ADMIN_PASSWORD",
        "NATS_GATEWAY_PASSWORD",
        "NATS_INGEST_PASSWORD",
        "NATS_SENDER_PASSWORD",
        "NATS_NOTIFIER_PASSWORD",
        "PIP_INDEX_URL",
        "PIP_TRUSTED_HOST",
        "PIP_CERT",
        # the OpenTelemetry SDK
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
)
"""Variables in `.env.example` of programs without a settings class."""

_OF_OTHER_PROGRAMS = ("OTEL_", "COMPOSE_", "DOCKER_")

# The supervisor sets these for the processes if they are not set.
_SET_LATER = {
    "DATABASE_URL": "postgresql+asyncpg://localhost/messaging_service",
    "NATS_URL": "nats://localhost",
    "GATEWAY_URL": "http://localhost:8080",
    "SMS_PROVIDER_URL": "http://localhost:8001",
    "EMAIL_PROVIDER_URL": "http://localhost:8002",
}

_SIMILARITY = 0.8


def variables(kind: type[BaseSettings]) -> list[str]:
    """Return the names of the environment variables of a settings class."""
    return [field.upper() for field in kind.model_fields]


def known_variables() -> set[str]:
    return {name for kind in SETTINGS for name in variables(kind)} | OTHER_VARIABLES


def check_settings(environment: Mapping[str, str], names_in_file: Iterable[str]) -> list[str]:
    """Check the settings of all processes.

    Args:
        environment: the variables that are set, by the environment or by `.env`.
        names_in_file: the variables in `.env`.

    Returns:
        remarks for the person who starts the processes.

    Raises:
        StackError: the settings have faults; there is a line for each.
    """
    misspelt, unknown = _unknown_names(names_in_file)
    if faults := [*misspelt, *_faults_of_values(environment)]:
        raise StackError("\n".join(faults))
    if faults := missing_urls(load(LocalStackSettings, environment), environment):
        raise StackError("\n".join(faults))
    return [f".env sets {', '.join(unknown)}, which nothing here reads"] if unknown else []


def _faults_of_values(environment: Mapping[str, str]) -> Iterable[str]:
    """Return a line for each variable that is missing or has an invalid value."""
    try:
        collect(_checks(environment))
    except SettingsError as exc:
        return exc.faults
    return ()


def _checks(environment: Mapping[str, str]) -> Iterator[Callable[[], object]]:
    """Return functions that read the settings as the processes do before they start."""
    of_services = {**_SET_LATER, **environment}
    for kind in SETTINGS:
        yield partial(load, kind, environment if kind is LocalStackSettings else of_services)
    chosen = set(_chosen_providers(environment))
    for name, provider in PROVIDERS.items():
        values = values_of(provider.settings, of_services)
        yield partial(create_verifier, provider, _env_file=None, **values)
        if name in chosen:
            yield partial(create_adapter, provider, _env_file=None, **values)


def _unknown_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Look for variables of `.env` that no program reads.

    Returns:
        a line for each name that is probably misspelt, and the other unknown names.
    """
    known = known_variables()
    misspelt, unknown = [], []
    for name in names:
        if name.upper() in known or name.upper().startswith(_OF_OTHER_PROGRAMS):
            continue
        if similar := get_close_matches(name.upper(), sorted(known), n=1, cutoff=_SIMILARITY):
            misspelt.append(f"{name} in .env is not a known setting; did you mean {similar[0]}?")
        else:
            unknown.append(name)
    return misspelt, unknown


def _chosen_providers(environment: Mapping[str, str]) -> Iterator[str]:
    """Find the names in the raw values, so that a fault of one setting hides none of the providers' own."""
    for field in ("sms_providers", "email_providers", "routes"):
        default = SenderSettings.model_fields[field].get_default(call_default_factory=True)
        text = environment.get(field.upper()) or ",".join(default)
        yield from (name for name in re.split(r"[,;=\s]+", text) if name in PROVIDERS)
