"""The containers of docker-compose.yml have few rights, and bounded memory."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = [name for name, service in SERVICES.items() if service.get("image") == "messaging-service"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_gains_no_privileges_and_has_bounded_memory(name: str) -> None:
    service = SERVICES[name]

    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["mem_limit"]


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_has_no_capabilities(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_interface_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_monitoring_of_nats_is_closed() -> None:
    configuration = (ROOT / "deploy" / "nats" / "nats-server.conf").read_text()

    assert 'http: "127.0.0.1:8222"' in configuration.splitlines()
    assert not any(":8222" in port for port in SERVICES["nats"]["ports"])
