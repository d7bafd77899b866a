"""From the configuration to the processes: which there are, and what each is told."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from dev.local_stack import external
from dev.local_stack.configuration import Configuration
from dev.local_stack.ports import Listener, free_port
from dev.local_stack.processes import Command
from dev.local_stack.programs import Plan, Program, Stage
from dev.local_stack.readiness import answers_http
from dev.local_stack.servers import HOST, LocalServer, NatsServer, PostgresServer


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where everything is to be found; the health ports are by process name."""

    database_url: str
    nats_url: str
    gateway_url: str
    sms_provider_url: str
    email_provider_url: str
    health_ports: Mapping[str, int]


def listeners_of(configuration: Configuration) -> Iterator[Listener]:
    """The ports that were chosen by somebody, or by default, and so must be free."""
    if configuration.owns_servers:
        yield Listener("POSTGRES_PORT", HOST, configuration.postgres_port)
        yield Listener("NATS_PORT", HOST, configuration.nats_port)
    if not configuration.sms_provider_url:
        yield Listener("SMS_PROVIDER_PORT", HOST, configuration.sms_provider_port)
    if not configuration.email_provider_url:
        yield Listener("EMAIL_PROVIDER_PORT", HOST, configuration.email_provider_port)
    yield Listener("GATEWAY_PORT", configuration.gateway_host, configuration.gateway_port)
    for variable, first, count in (
        ("INGEST_HEALTH_PORT", configuration.ingest_health_port, configuration.ingests),
        ("SENDER_HEALTH_PORT", configuration.sender_health_port, configuration.senders),
    ):
        if first is not None:
            yield from (Listener(variable, HOST, first + number) for number in range(count))


def addresses_of(configuration: Configuration) -> Addresses:
    """Settle where everything will be, with free ports for what nobody chose one for."""
    postgres, nats = _own_servers(configuration)
    host = {"0.0.0.0": HOST, "::": "::1"}.get(configuration.gateway_host, configuration.gateway_host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    return Addresses(
        database_url=configuration.database_url or postgres.url,
        nats_url=configuration.nats_url or nats.url,
        gateway_url=f"http://{host}:{configuration.gateway_port}",
        sms_provider_url=configuration.sms_provider_url or f"http://{HOST}:{configuration.sms_provider_port}",
        email_provider_url=configuration.email_provider_url
        or f"http://{HOST}:{configuration.email_provider_port}",
        health_ports=_health_ports(configuration),
    )


def make_plan(configuration: Configuration, addresses: Addresses) -> Plan:
    """Raises StackError when a program is missing."""
    environment = _environment(configuration, addresses)
    provision = _python(configuration, "provision", environment, "shared.bus.provision")
    services = tuple(_services(configuration, addresses, environment))
    if not configuration.owns_servers:
        checks = (
            partial(external.check_database, addresses.database_url),
            partial(external.check_broker, addresses.nats_url),
            partial(
                external.check_schema,
                _python(configuration, "migrations", environment, "alembic", "current", "--check-heads"),
            ),
        )
        return Plan(checks=checks, steps=(provision,), services=services)
    postgres, nats = _own_servers(configuration)
    return Plan(
        servers=(_server(postgres, Stage.DATABASE), _server(nats, Stage.BROKER)),
        steps=(_python(configuration, "migrate", environment, "alembic", "upgrade", "head"), provision),
        services=services,
    )


def _own_servers(configuration: Configuration) -> tuple[PostgresServer, NatsServer]:
    data, log = configuration.data_folder, configuration.log_folder
    return (
        PostgresServer(data / "postgres", configuration.postgres_port, log=log / "postgres.log"),
        NatsServer(data / "nats", configuration.nats_port, log=log / "nats.log"),
    )


def _server(server: LocalServer, stage: Stage) -> Program:
    return Program(command=server.command(), ready=server.answers, prepare=server.prepare, stage=stage)


def _services(
    configuration: Configuration, addresses: Addresses, environment: Mapping[str, str]
) -> Iterator[Program]:
    if not (configuration.sms_provider_url and configuration.email_provider_url):
        yield _mocks(configuration, addresses, environment)
    for name, port in addresses.health_ports.items():
        health = {"HEALTH_HOST": HOST, "HEALTH_PORT": str(port)}
        module = f"services.{name.partition('-')[0]}"
        yield Program(
            command=_python(configuration, name, {**environment, **health}, module),
            ready=partial(answers_http, f"http://{HOST}:{port}/readyz"),
            stage=Stage.WORKERS,
        )
    yield Program(
        command=_python(configuration, "gateway", environment, "services.gateway"),
        ready=partial(answers_http, f"{addresses.gateway_url}/readyz"),
        stage=Stage.GATEWAY,
    )


def _mocks(configuration: Configuration, addresses: Addresses, environment: Mapping[str, str]) -> Program:
    """Both mocks are one process. A mock that nobody needs takes any free port, out of the way."""
    wanted = [
        ("SMS_PROVIDER_PORT", configuration.sms_provider_url, configuration.sms_provider_port),
        ("EMAIL_PROVIDER_PORT", configuration.email_provider_url, configuration.email_provider_port),
    ]
    mock_ports = {variable: 0 if url else port for variable, url, port in wanted}
    place = addresses.email_provider_url if configuration.sms_provider_url else addresses.sms_provider_url
    return Program(
        command=_python(
            configuration,
            "mocks",
            {**environment, **{variable: str(port) for variable, port in mock_ports.items()}},
            "mock_providers",
        ),
        ready=partial(answers_http, f"{place}/healthz"),
        stage=Stage.WORKERS,
    )


def _environment(configuration: Configuration, addresses: Addresses) -> dict[str, str]:
    return {
        "LOG_FORMAT": "text",  # a person watches, unless the environment knows better
        **configuration.environment,
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": _with_driver(addresses.database_url)
        if configuration.owns_servers
        else addresses.database_url,
        "NATS_URL": addresses.nats_url,
        "GATEWAY_HOST": configuration.gateway_host,
        "GATEWAY_PORT": str(configuration.gateway_port),
        "GATEWAY_URL": addresses.gateway_url,
        "SMS_PROVIDER_URL": addresses.sms_provider_url,
        "EMAIL_PROVIDER_URL": addresses.email_provider_url,
    }


def _with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


def _python(configuration: Configuration, name: str, environment: Mapping[str, str], *module: str) -> Command:
    return Command(
        name=name,
        argv=(sys.executable, "-m", *module),
        environment=environment,
        folder=configuration.root,
    )


def _health_ports(configuration: Configuration) -> dict[str, int]:
    taken = {listener.port for listener in listeners_of(configuration)}
    found = {}
    for service, first, count in (
        ("ingest", configuration.ingest_health_port, configuration.ingests),
        ("sender", configuration.sender_health_port, configuration.senders),
    ):
        for number in range(count):
            name = service if count == 1 else f"{service}-{number + 1}"
            found[name] = free_port(taken) if first is None else first + number
            taken.add(found[name])
    return found
