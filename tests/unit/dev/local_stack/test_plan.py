from collections.abc import Mapping
from pathlib import Path

import pytest

from dev.local_stack.configuration import configure
from dev.local_stack.plan import Addresses, addresses_of, listeners_of, make_plan
from dev.local_stack.processes import Command
from dev.local_stack.programs import Plan, Stage
from dev.local_stack.welcome import introduction, welcome

ROOT = Path("/somewhere")
THEIRS = {
    "DATABASE_URL": "postgresql+asyncpg://u:hunter2@db:6000/d",
    "NATS_URL": "nats://u:hunter2@a,nats://b:4333",
}
PROVIDERS = {"SMS_PROVIDER_URL": "https://sms.example", "EMAIL_PROVIDER_URL": "https://email.example"}

MOCKED_TWILIO = {"TWILIO_URL": "http://localhost:8001", "TWILIO_AUTH_TOKEN": "hunter2"}


def planned(environment: Mapping[str, str]) -> tuple[Plan, Addresses]:
    configuration = configure(environment, ROOT)
    addresses = addresses_of(configuration)
    return make_plan(configuration, addresses), addresses


def command(plan: Plan, name: str) -> Command:
    commands = [*plan.steps, *(program.command for program in (*plan.servers, *plan.services))]
    (found,) = (candidate for candidate in commands if candidate.name == name)
    return found


def test_without_settings_everything_is_started() -> None:
    plan, _ = planned({})
    assert plan.checks == ()
    assert plan.names == (
        "postgres",
        "nats",
        "mocks",
        "ingest",
        "sender",
        "notifier",
        "gateway",
        "migrate",
        "provision",
    )


def test_other_servers_are_only_checked() -> None:
    plan, _ = planned(THEIRS)
    assert [check.name for check in plan.checks] == ["postgres", "nats", "migrations"]
    assert plan.names == ("mocks", "ingest", "sender", "notifier", "gateway", "provision")
    assert command(plan, "ingest").environment["DATABASE_URL"] == THEIRS["DATABASE_URL"]


def test_other_providers_need_no_mocks() -> None:
    plan, _ = planned(PROVIDERS)
    assert "mocks" not in plan.names
    assert command(plan, "sender").environment["SMS_PROVIDER_URL"] == "https://sms.example"


def test_the_sender_gets_the_chosen_providers_and_their_credentials() -> None:
    environment = {"SMS_PROVIDERS": "twilio,generic_sms", **MOCKED_TWILIO}
    configuration = configure(environment, ROOT)
    addresses = addresses_of(configuration)
    sender = command(make_plan(configuration, addresses), "sender")
    assert environment.items() <= sender.environment.items()
    shown = welcome(configuration, addresses)
    assert "twilio at http://127.0.0.1:8001 (a mock" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("real", "mocked", "variable"),
    [
        ({"SMS_PROVIDER_URL": "https://sms.example"}, "email", "EMAIL_PROVIDER_PORT"),
        ({"SMS_PROVIDERS": "twilio"}, "email", "EMAIL_PROVIDER_PORT"),
        ({"ROUTES": "+12016661234=twilio"}, "email", "EMAIL_PROVIDER_PORT"),
        ({"SMS_PROVIDERS": "twilio", "TWILIO_URL": "http://10.0.0.1:8001"}, "email", "EMAIL_PROVIDER_PORT"),
        ({"SMS_PROVIDERS": "twilio", "TWILIO_URL": "http://localhost:9001"}, "email", "EMAIL_PROVIDER_PORT"),
        ({"EMAIL_PROVIDER_URL": "https://email.example"}, "sms", "SMS_PROVIDER_PORT"),
        ({"EMAIL_PROVIDERS": "sendgrid"}, "sms", "SMS_PROVIDER_PORT"),
    ],
)
def test_no_mock_runs_beside_a_real_provider_of_its_channel(
    real: dict[str, str], mocked: str, variable: str
) -> None:
    plan, _ = planned(real)
    assert command(plan, "mocks").argv[1:] == ("-m", "mock_providers", mocked)
    ports = {listener.variable for listener in listeners_of(configure(real, ROOT))}
    assert ports & {"SMS_PROVIDER_PORT", "EMAIL_PROVIDER_PORT"} == {variable}


def test_a_provider_at_the_address_of_its_mock_is_a_mock() -> None:
    plan, _ = planned({"SMS_PROVIDERS": "twilio", **MOCKED_TWILIO})
    mocks = command(plan, "mocks")
    assert mocks.argv[1:] == ("-m", "mock_providers", "sms", "email")
    assert mocks.environment["TWILIO_AUTH_TOKEN"] == "hunter2"


def test_another_process_may_be_in_front_of_a_mock_whose_port_is_set() -> None:
    recorded = {"SMS_PROVIDERS": "twilio", "TWILIO_URL": "http://127.0.0.1:9001", "SMS_PROVIDER_PORT": "9000"}
    assert command(planned(recorded)[0], "mocks").argv[1:] == ("-m", "mock_providers", "sms", "email")
    real = {**recorded, "TWILIO_URL": "http://10.0.0.1:9001"}
    assert command(planned(real)[0], "mocks").argv[1:] == ("-m", "mock_providers", "email")


def test_mocks_get_no_secrets_of_real_providers() -> None:
    secrets = {
        "TWILIO_AUTH_TOKEN": "hunter2",
        "SENDGRID_API_KEY": "hunter2",
        "API_KEYS": "me:hunter2",
        "UNSUBSCRIBE_SECRET": "hunter2hunter2hunter2",
    }
    signed = {"WEBHOOK_SECRET": "whsec_aHVudGVyMg=="}
    environment = command(planned({**secrets, **signed})[0], "mocks").environment
    assert "hunter2" not in str(environment)
    assert environment["WEBHOOK_SECRET"] == signed["WEBHOOK_SECRET"]
    real_sms = {**secrets, **signed, "SMS_PROVIDER_URL": "https://sms.example"}
    assert "WEBHOOK_SECRET" not in command(planned(real_sms)[0], "mocks").environment


def test_each_process_has_its_own_health_port() -> None:
    plan, addresses = planned({"SENDERS": "3", "INGESTS": "2", "SENDER_HEALTH_PORT": "9100"})
    assert {name: port for name, port in addresses.health_ports.items() if name.startswith("sender")} == {
        "sender-1": 9100,
        "sender-2": 9101,
        "sender-3": 9102,
    }
    assert {name: port for name, port in addresses.health_ports.items() if name.startswith("ingest")} == {
        "ingest-1": 8101,
        "ingest-2": 8102,
    }
    assert addresses.health_ports["gateway"] == 8301
    sender = command(plan, "sender-2")
    assert sender.argv[1:] == ("-m", "services.sender")
    assert sender.environment["HEALTH_PORT"] == "9101"


def test_several_gateways_share_a_port_and_each_has_one_of_its_own() -> None:
    plan, addresses = planned({"GATEWAYS": "2", "GATEWAY_PORT": "9000", "GATEWAY_HEALTH_PORT": "9100"})
    gateways = {name: port for name, port in addresses.health_ports.items() if name.startswith("gateway")}
    assert gateways == {"gateway-1": 9100, "gateway-2": 9101}
    assert addresses.gateway_url == "http://127.0.0.1:9000"
    for name, port in gateways.items():
        gateway = command(plan, name)
        assert gateway.argv[1:] == ("-m", "services.gateway")
        assert gateway.environment["GATEWAY_PORT"] == "9000"
        assert gateway.environment["GATEWAY_HEALTH_PORT"] == str(port)
    programs = [program for program in plan.services if program.command.name in gateways]
    assert [program.address for program in programs] == [
        "http://127.0.0.1:9100/readyz",
        "http://127.0.0.1:9101/readyz",
    ]
    assert {program.stage for program in programs} == {Stage.GATEWAY}


def test_all_ports_have_to_be_free() -> None:
    settings = {"INGESTS": "2", "INGEST_HEALTH_PORT": "9000", "GATEWAYS": "2"}
    listeners = list(listeners_of(configure(settings, ROOT)))
    assert [(listener.variable, listener.port) for listener in listeners] == [
        ("POSTGRES_PORT", 5432),
        ("NATS_PORT", 4222),
        ("SMS_PROVIDER_PORT", 8001),
        ("EMAIL_PROVIDER_PORT", 8002),
        ("GATEWAY_PORT", 8080),
        ("INGEST_HEALTH_PORT", 9000),
        ("INGEST_HEALTH_PORT", 9001),
        ("SENDER_HEALTH_PORT", 8201),
        ("NOTIFIER_HEALTH_PORT", 8401),
        ("GATEWAY_HEALTH_PORT", 8301),
        ("GATEWAY_HEALTH_PORT", 8302),
    ]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104 - a possible choice
        ("::", "http://[::1]:8080"),
        ("10.1.2.3", "http://10.1.2.3:8080"),
    ],
)
def test_the_gateway_is_asked_where_it_can_be_reached(host: str, url: str) -> None:
    assert addresses_of(configure({"GATEWAY_HOST": host}, ROOT)).gateway_url == url


def test_the_welcome_has_all_addresses() -> None:
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


def test_the_welcome_has_no_secrets() -> None:
    configuration = configure({**THEIRS, "API_KEYS": "me:hunter2"}, ROOT)
    text = welcome(configuration, addresses_of(configuration))
    assert "hunter2" not in text
    assert "db:6000" in text
    assert "a:4222, b:4333" in text
    assert "Authorization: Bearer" in text


def test_the_introduction_says_where_the_data_is_and_what_was_remarked() -> None:
    configuration = configure({}, ROOT, notes=["a remark"])
    assert introduction(configuration).splitlines() == [
        "note: a remark",
        "Starting, with the data in /somewhere/.data, which is new. Press Ctrl-C to stop.",
    ]
    assert "hunter2" not in introduction(configure(THEIRS, ROOT))
