"""`.env.example` names every variable that there is."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from mock_providers.settings import Settings as MockProviderSettings
from services.gateway.settings import GatewaySettings
from services.ingest.settings import IngestSettings
from shared.providers.registry import PROVIDERS
from services.sender.settings import SenderSettings
from shared.bus.provision import ProvisionSettings

ROOT = Path(__file__).parents[2]
NAMED = set(re.findall(r"(?m)^#?([A-Z_]+)=", (ROOT / ".env.example").read_text()))


@pytest.mark.parametrize(
    "settings",
    [
        GatewaySettings,
        IngestSettings,
        SenderSettings,
        ProvisionSettings,
        MockProviderSettings,
        *(provider.settings for provider in PROVIDERS.values()),
    ],
)
def test_it_names_the_settings(settings: type[BaseSettings]) -> None:
    assert {field.upper() for field in settings.model_fields} - NAMED == set()


def test_it_names_what_the_local_stack_reads() -> None:
    source = (ROOT / "dev.local_stack" / "configuration.py").read_text()
    assert set(re.findall(r'"([A-Z]+(?:_[A-Z]+)*)"', source)) - NAMED == set()


def test_it_names_what_docker_compose_reads() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) - NAMED == set()
