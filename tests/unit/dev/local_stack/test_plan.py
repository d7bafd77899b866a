from collections.abc import Mapping
from pathlib import Path

import pytest

from dev.local_stack.configuration import configure
from dev.local_stack.plan import Addresses, addresses_of, listeners_of, make_plan
from dev.local_stack.processes import Command
from dev.local_stack.programs import Plan
from dev.local_stack.welcome import welcome

ROOT = Path("/somewhere")
THEIRS = {"DATABASE_URL": "postgresql://u:hunter2@db:6000/d", "NATS_URL": "nats://u:hunter2@a,nats://b:4333"}
PROVIDERS = {"SMS_PROVIDER_URL": "https://sms.example", "EMAIL_PROVIDER_URL": "https://email.example"}


def planned(environment: Mapping[str, str]) -> tuple[Plan, Addresses]:
    configuration = configure(environment, ROOT)
    addresses = addresses_of(configuration)
    return make_plan(configuration, addresses), addresses


def command(plan: Plan, name: str) -> Command:
    commands = [*plan.steps, *(program.command for program in (*plan.servers, *plan.services))]
    (found,) = (candidate for candidate in commands if candidate.name == name)
    return found


def test_with_nothing_set_all_of_it_is_started() -> None:
    plan, _ = planned({})
    assert plan.checks == ()
    assert plan.names == ("postgres", "nats", "mocks", "ingest", "sender", "gateway", "migrate", "provision")


def test_servers_of_somebody_else_are_only_checked() -> None:
    plan, _ = planned(THEIRS)
    assert len(plan.checks) == 3
    assert plan.names == ("mocks", "ingest", "sender", "gateway", "provision")
    assert command(plan, "ingest").environment["DATABASE_URL"] == THEIRS["DATABASE_URL"]


def test_providers_of_somebody_else_need_no_mocks() -> None:
    plan, _ = planned(PROVIDERS)
    assert "mocks" not in plan.names
    assert command(plan, "sender").environment["SMS_PROVIDER_URL"] == "https://sms.example"


def test_the_sender_gets_the_providers_that_were_chosen_and_what_they_need() -> None:
    environment = {"SMS_PROVIDERS": "twilio,generic_sms", "TWILIO_AUTH_TOKEN": "hunter2"}
    configuration = configure(environment, ROOT)
    addresses = addresses_of(configuration)
    sender = command(make_plan(configuration, addresses), "sender")
    assert environment.items() <= sender.environment.items()
    shown = welcome(configuration, addresses)
    assert "twilio, then http://127.0.0.1:8001  (a mock" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("chosen", "sms", "email"),
    [("SMS_PROVIDER_URL", "0", "8002"), ("EMAIL_PROVIDER_URL", "8001", "0")],
)
def test_the_mock_of_a_provider_that_is_there_stays_out_of_the_way(chosen: str, sms: str, email: str) -> None:
    plan, _ = planned({chosen: "https://provider.example"})
    environment = command(plan, "mocks").environment
    assert (environment["SMS_PROVIDER_PORT"], environment["EMAIL_PROVIDER_PORT"]) == (sms, email)


def test_several_processes_each_have_a_health_port() -> None:
    plan, addresses = planned({"SENDERS": "3", "INGESTS": "2", "SENDER_HEALTH_PORT": "9100"})
    assert {name: port for name, port in addresses.health_ports.items() if name.startswith("sender")} == {
        "sender-1": 9100,
        "sender-2": 9101,
        "sender-3": 9102,
    }
    assert len(set(addresses.health_ports.values())) == 5
    sender = command(plan, "sender-2")
    assert sender.argv[1:] == ("-m", "services.sender")
    assert sender.environment["HEALTH_PORT"] == "9101"


def test_all_chosen_ports_have_to_be_free() -> None:
    listeners = list(listeners_of(configure({"INGESTS": "2", "INGEST_HEALTH_PORT": "9000"}, ROOT)))
    assert [(listener.variable, listener.port) for listener in listeners] == [
        ("POSTGRES_PORT", 5432),
        ("NATS_PORT", 4222),
        ("SMS_PROVIDER_PORT", 8001),
        ("EMAIL_PROVIDER_PORT", 8002),
        ("GATEWAY_PORT", 8080),
        ("INGEST_HEALTH_PORT", 9000),
        ("INGEST_HEALTH_PORT", 9001),
    ]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104 - what a person may choose
        ("::", "http://[::1]:8080"),
        ("10.1.2.3", "http://10.1.2.3:8080"),
    ],
)
def test_the_gateway_is_asked_where_it_can_be_reached(host: str, url: str) -> None:
    assert addresses_of(configure({"GATEWAY_HOST": host}, ROOT)).gateway_url == url


def test_the_welcome_names_what_is_there() -> None:
    configuration = configure({}, ROOT)
    text = welcome(configuration, addresses_of(configuration))
    for part in (
        "http://127.0.0.1:8080/docs",
        "postgresql://messaging_user:messaging_password@127.0.0.1:5432/messaging_service",
        "nats://127.0.0.1:4222",
        "http://127.0.0.1:8001",
        "http://127.0.0.1:8002",
        "/somewhere/.data",
        "curl http://127.0.0.1:8080/api/messages/sms",
    ):
        assert part in text


def test_the_welcome_keeps_secrets() -> None:
    configuration = configure({**THEIRS, "API_KEYS": "me:hunter2"}, ROOT)
    text = welcome(configuration, addresses_of(configuration))
    assert "hunter2" not in text
    assert "db:6000" in text
    assert "a:4222, b:4333" in text
    assert "Authorization: Bearer" in text
