"""What the person at the keyboard decides: the environment, and `.env` below it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from dev.local_stack import ports
from dev.local_stack.errors import StackError

_MOST_PROCESSES = 32


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How to run.

    Attributes:
        environment: what the processes get; it may hold secrets.
        database_url: None where PostgreSQL and NATS are to be started here.
        sms_provider_url: None where a mock is to stand in for the provider.
        ingest_health_port: of the first process, the others count up from it; None for any free ones.
    """

    root: Path
    environment: Mapping[str, str] = field(repr=False)
    data_folder: Path
    database_url: str | None = field(repr=False)
    nats_url: str | None = field(repr=False)
    postgres_port: int
    nats_port: int
    gateway_host: str
    gateway_port: int
    sms_provider_url: str | None
    sms_provider_port: int
    email_provider_url: str | None
    email_provider_port: int
    ingests: int
    ingest_health_port: int | None
    senders: int
    sender_health_port: int | None

    @property
    def log_folder(self) -> Path:
        return self.data_folder / "log"

    @property
    def owns_servers(self) -> bool:
        return self.database_url is None


def read_environment(root: Path) -> dict[str, str]:
    """The environment, with `.env` of the folder for what it does not have. An empty variable is none.

    Raises:
        StackError: the file cannot be read.
    """
    try:
        file = dotenv_values(root / ".env")
    except (OSError, ValueError) as exc:
        raise StackError(f"{root / '.env'} cannot be read: {exc}") from exc
    merged = {**file, **{name: value for name, value in os.environ.items() if value.strip()}}
    return {name: value for name, value in merged.items() if value is not None and value.strip()}


def configure(environment: Mapping[str, str], root: Path) -> Configuration:
    """Read what is to be done.

    Raises:
        StackError: a variable makes no sense, or goes without its companion.
    """
    database_url, nats_url = environment.get("DATABASE_URL"), environment.get("NATS_URL")
    _check_both_or_neither(database_url, nats_url)
    return Configuration(
        root=root,
        environment=environment,
        data_folder=root / Path(environment.get("DATA_DIR", ".data")).expanduser(),
        database_url=database_url,
        nats_url=nats_url,
        postgres_port=_port(environment, "POSTGRES_PORT", 5432),
        nats_port=_port(environment, "NATS_PORT", 4222),
        gateway_host=environment.get("GATEWAY_HOST", "127.0.0.1").strip(),
        gateway_port=_port(environment, "GATEWAY_PORT", 8080),
        sms_provider_url=environment.get("SMS_PROVIDER_URL"),
        sms_provider_port=_port(environment, "SMS_PROVIDER_PORT", 8001),
        email_provider_url=environment.get("EMAIL_PROVIDER_URL"),
        email_provider_port=_port(environment, "EMAIL_PROVIDER_PORT", 8002),
        ingests=_processes(environment, "INGESTS"),
        ingest_health_port=_optional_port(environment, "INGEST_HEALTH_PORT"),
        senders=_processes(environment, "SENDERS"),
        sender_health_port=_optional_port(environment, "SENDER_HEALTH_PORT"),
    )


def _check_both_or_neither(database_url: str | None, nats_url: str | None) -> None:
    if database_url and not nats_url:
        raise StackError(
            "DATABASE_URL is set but NATS_URL is not: set both, or neither, in the environment or .env"
        )
    if nats_url and not database_url:
        raise StackError(
            "NATS_URL is set but DATABASE_URL is not: set both, or neither, in the environment or .env"
        )


def _port(environment: Mapping[str, str], variable: str, default: int) -> int:
    return _number(environment, variable, default, 1, ports.HIGHEST)


def _optional_port(environment: Mapping[str, str], variable: str) -> int | None:
    return _port(environment, variable, 0) if variable in environment else None


def _processes(environment: Mapping[str, str], variable: str) -> int:
    return _number(environment, variable, 1, 1, _MOST_PROCESSES)


def _number(environment: Mapping[str, str], variable: str, default: int, low: int, high: int) -> int:
    text = environment.get(variable, "").strip()
    if not text:
        return default
    # Digits only, as int() would also take signs and 1_000.
    if text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high:
        return int(text)
    raise StackError(f"{variable} is {text!r}: it must be a whole number from {low} to {high}")
