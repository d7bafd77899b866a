"""Turns the configuration into a plan: the processes, and the variables of each."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from dev.local_stack import external
from dev.local_stack.configuration import Configuration
from dev.local_stack.mocks import environment_of_mocks, mocked_channels
from dev.local_stack.ports import Listener
from dev.local_stack.processes import Command
from dev.local_stack.programs import Check, Plan, Program, Stage
from dev.local_stack.readiness import answers_http
from dev.local_stack.servers import HOST, LocalServer, NatsServer, PostgresServer
from shared.channels import Channel


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where everything can be reached; the health ports are by process name."""

    database_url: str
    nats_url: str
    gateway_url: str
    sms_provider_url: str
    email_provider_url: str
    health_ports: Mapping[str, int]


def listeners_of(configuration: Configuration) -> Iterator[Listener]:
    """Return the ports that must be free."""
    settings = configuration.settings
    if configuration.owns_servers:
        yield Listener("POSTGRES_PORT", HOST, settings.postgres_port)
        yield Listener("NATS_PORT", HOST, settings.nats_port)
    for channel in mocked_channels(settings, configuration.environment):
        port = getattr(settings, f"{channel}_provider_port")
        yield Listener(f"{channel}_provider_port".upper(), HOST, port)
    yield Listener("GATEWAY_PORT", settings.gateway_host, settings.gateway_port)
    for name, port in _health_ports(configuration).items():
        yield Listener(f"{_service_of(name)}_HEALTH_PORT".upper(), HOST, port)


def addresses_of(configuration: Configuration) -> Addresses:
    postgres, nats = _own_servers(configuration)
    settings = configuration.settings
    host = {"0.0.0.0": HOST, "::": "::1"}.get(settings.gateway_host, settings.gateway_host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    return Addresses(
        database_url=configuration.database_url or postgres.url,
        nats_url=configuration.nats_url or nats.url,
        gateway_url=f"http://{host}:{settings.gateway_port}",
        sms_provider_url=_provider_url(configuration, Channel.SMS),
        email_provider_url=_provider_url(configuration, Channel.EMAIL),
        health_ports=_health_ports(configuration),
    )


def make_plan(configuration: Configuration, addresses: Addresses) -> Plan:
    """Return what to start. Raises StackError if a program is missing."""
    environment = _environment(configuration, addresses)
    provision = _python(configuration, "provision", environment, "shared.bus.provision")
    services = tuple(_services(configuration, addresses, environment))
    log_folder = configuration.log_folder
    if not configuration.owns_servers:
        current = _python(configuration, "migrations", environment, "alembic", "current", "--check-heads")
        checks = (
            Check(name="postgres", run=partial(external.check_database, addresses.database_url)),
            Check(name="nats", run=partial(external.check_broker, addresses.nats_url)),
            Check(name="migrations", run=partial(external.check_schema, current)),
        )
        return Plan(checks=checks, steps=(provision,), services=services, log_folder=log_folder)
    postgres, nats = _own_servers(configuration)
    return Plan(
        servers=(_server(postgres, Stage.DATABASE), _server(nats, Stage.BROKER)),
        steps=(_python(configuration, "migrate", environment, "alembic", "upgrade", "head"), provision),
        services=services,
        log_folder=log_folder,
    )


def _provider_url(configuration: Configuration, channel: Channel) -> str:
    """Return the URL of the generic provider, or of its mock."""
    settings = configuration.settings
    chosen: str | None = getattr(settings, f"{channel}_provider_url")
    return chosen or f"http://{HOST}:{getattr(settings, f'{channel}_provider_port')}"


def _own_servers(configuration: Configuration) -> tuple[PostgresServer, NatsServer]:
    data, log, settings = configuration.data_folder, configuration.log_folder, configuration.settings
    return (
        PostgresServer(data / "postgres", settings.postgres_port, log=log / "postgres.log"),
        NatsServer(data / "nats", settings.nats_port, log=log / "nats.log"),
    )


def _server(server: LocalServer, stage: Stage) -> Program:
    return Program(
        command=server.command(),
        ready=server.answers,
        address=server.url,
        prepare=server.prepare,
        stage=stage,
        broken=server.broken,
    )


def _services(
    configuration: Configuration, addresses: Addresses, environment: Mapping[str, str]
) -> Iterator[Program]:
    settings = configuration.settings
    if channels := mocked_channels(settings, configuration.environment):
        yield _mocks(configuration, addresses, channels)
    for name, port in addresses.health_ports.items():
        service = _service_of(name)
        variable = "GATEWAY_HEALTH_PORT" if service == "gateway" else "HEALTH_PORT"
        health = {"HEALTH_HOST": HOST, variable: str(port)}
        yield _service(
            _python(configuration, name, {**environment, **health}, f"services.{service}"),
            f"http://{HOST}:{port}/readyz",
            Stage.GATEWAY if service == "gateway" else Stage.WORKERS,
        )


def _mocks(configuration: Configuration, addresses: Addresses, channels: Sequence[Channel]) -> Program:
    """Plan one process for the mocks of these channels."""
    variables = {
        "PYTHONUNBUFFERED": "1",
        "GATEWAY_URL": addresses.gateway_url,
        **environment_of_mocks(configuration, channels),
    }
    command = _python(configuration, "mocks", variables, "mock_providers", *channels)
    return _service(command, f"{_provider_url(configuration, channels[0])}/healthz", Stage.WORKERS)


def _service(command: Command, url: str, stage: Stage) -> Program:
    return Program(command=command, ready=partial(answers_http, url), address=url, stage=stage)


def _environment(configuration: Configuration, addresses: Addresses) -> dict[str, str]:
    settings = configuration.settings
    database_url = addresses.database_url
    if configuration.owns_servers:
        database_url = database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    return {
        "LOG_FORMAT": "text",  # a person reads it, unless the settings say otherwise
        "MEDIA_STORE": str(configuration.data_folder / "media"),
        **configuration.environment,
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": database_url,
        "NATS_URL": addresses.nats_url,
        "GATEWAY_HOST": settings.gateway_host,
        "GATEWAY_PORT": str(settings.gateway_port),
        "GATEWAY_URL": addresses.gateway_url,
        "SMS_PROVIDER_URL": addresses.sms_provider_url,
        "EMAIL_PROVIDER_URL": addresses.email_provider_url,
        **_playground(configuration),
    }


def _playground(configuration: Configuration) -> dict[str, str]:
    """Return the settings by which the page controls the mocks."""
    channels = mocked_channels(configuration.settings, configuration.environment)
    urls = {
        f"PLAYGROUND_{channel.upper()}_URL": _provider_url(configuration, channel) for channel in channels
    }
    token = configuration.environment.get("MOCK_TOKEN")
    return {**urls, "PLAYGROUND_TOKEN": token} if token else urls


def _python(configuration: Configuration, name: str, environment: Mapping[str, str], *module: str) -> Command:
    return Command(
        name=name,
        argv=(sys.executable, "-m", *module),
        environment=environment,
        folder=configuration.root,
    )


def _health_ports(configuration: Configuration) -> dict[str, int]:
    settings = configuration.settings
    return {
        name: first + number
        for service, first, count in (
            ("ingest", settings.ingest_health_port, settings.ingests),
            ("sender", settings.sender_health_port, settings.senders),
            ("notifier", settings.notifier_health_port, settings.notifiers),
            ("gateway", settings.gateway_health_port, settings.gateways),
        )
        for number, name in enumerate(_names(service, count))
    }


def _names(service: str, count: int) -> list[str]:
    return [service] if count == 1 else [f"{service}-{number}" for number in range(1, count + 1)]


def _service_of(process_name: str) -> str:
    return process_name.partition("-")[0]
