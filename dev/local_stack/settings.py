from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from shared.settings import read

HIGHEST_PORT = 65_535
_DATABASE_SCHEME = "postgresql+asyncpg://"


def _database_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(_DATABASE_SCHEME):
        raise ValueError(f"must begin with {_DATABASE_SCHEME}")
    return value


Port = Annotated[int, Field(ge=1, le=HIGHEST_PORT)]
Processes = Annotated[int, Field(ge=1, le=32)]


class LocalStackSettings(BaseSettings):
    """Settings of `make run` itself.

    Attributes:
        database_url: the database to use. Without it and `nats_url`, a PostgreSQL and a NATS are started.
        nats_url: the NATS server to use, or several servers of a cluster separated by commas.
        postgres_port: port of the PostgreSQL that is started.
        nats_port: port of the NATS that is started.
        sms_provider_url: the generic SMS provider to use.
        email_provider_url: the generic e-mail provider to use.
        sms_provider_port: port of the mock SMS provider, if one is started.
        email_provider_port: port of the mock e-mail provider, if one is started.
        data_dir: folder of the data and the logs, relative to the folder of the project.
        gateways: number of gateway processes, which share the port.
        ingests: number of ingest processes.
        senders: number of sender processes.
        notifiers: number of notifier processes.
        gateway_health_port: own port of the first of several gateway processes; the next ones use the ports
            after it. A single process has only `gateway_port`.
        ingest_health_port: port of the first ingest process; the next ones use the ports after it.
        sender_health_port: port of the first sender process; the next ones use the ports after it.
        notifier_health_port: port of the first notifier process; the next ones use the ports after it.
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = None
    nats_url: SecretStr | None = Field(default=None, validate_default=True)
    postgres_port: Port = 5432
    nats_port: Port = 4222
    gateway_host: str = "127.0.0.1"
    gateway_port: Port = 8080
    sms_provider_url: str | None = None
    sms_provider_port: Port = 8001
    email_provider_url: str | None = None
    email_provider_port: Port = 8002
    data_dir: Path = Path(".data")
    gateways: Processes = 1
    ingests: Processes = 1
    senders: Processes = 1
    notifiers: Processes = 1
    gateway_health_port: Port = 8301
    ingest_health_port: Port = 8101
    sender_health_port: Port = 8201
    notifier_health_port: Port = 8401

    @field_validator("nats_url")
    @classmethod
    def _require_both_servers_or_neither(
        cls, url: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        has_nats = url is not None
        has_database = info.data.get("database_url", "invalid") is not None
        if has_database == has_nats:
            return url
        problem = "is set but DATABASE_URL is not" if has_nats else "is not set but DATABASE_URL is"
        raise ValueError(
            f"{problem}: set both to use your own servers, "
            "or neither to have `make run` start a PostgreSQL and a NATS"
        )


S = TypeVar("S", bound=BaseSettings)


def load(kind: type[S], environment: Mapping[str, str]) -> S:
    """Read settings from these variables alone.

    Raises:
        SettingsError: some are missing or invalid.
    """
    return read(kind, _env_file=None, **values_of(kind, environment))


def values_of(kind: type[BaseSettings], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables of a settings class by the names of its fields."""
    source = EnvSettingsSource(kind)
    source.env_vars = {name.lower(): value for name, value in environment.items()}
    return source()
