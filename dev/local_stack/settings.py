from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

HIGHEST_PORT = 65_535
_DATABASE_SCHEME = "postgresql+asyncpg://"
_VERBS = ("is ", "must ", "has ")
_TYPES_TO_SHOW = ("int", "float", "bool", "literal", "enum", "greater", "less")
"""Beginnings of the types of errors about numbers, switches and choices."""


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
        sms_provider_url: the generic SMS provider to use; without it, a mock is started.
        email_provider_url: the generic e-mail provider to use; without it, a mock is started.
        data_dir: folder of the data and the logs, relative to the folder of the project.
        ingests: number of ingest processes.
        senders: number of sender processes.
        ingest_health_port: port of the first ingest process; the next ones use the ports after it.
        sender_health_port: port of the first sender process; the next ones use the ports after it.
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = None
    nats_url: SecretStr | None = None
    postgres_port: Port = 5432
    nats_port: Port = 4222
    gateway_host: str = "127.0.0.1"
    gateway_port: Port = 8080
    sms_provider_url: str | None = None
    sms_provider_port: Port = 8001
    email_provider_url: str | None = None
    email_provider_port: Port = 8002
    data_dir: Path = Path(".data")
    ingests: Processes = 1
    senders: Processes = 1
    ingest_health_port: Port = 8101
    sender_health_port: Port = 8201

    @model_validator(mode="after")
    def _both_servers_or_neither(self) -> Self:
        if (self.database_url is None) == (self.nats_url is None):
            return self
        present, absent = "DATABASE_URL", "NATS_URL"
        if self.database_url is None:
            present, absent = absent, present
        raise ValueError(
            f"{present} is set but {absent} is not: set both to use your own servers, "
            "or neither to have `make run` start a PostgreSQL and a NATS"
        )


S = TypeVar("S", bound=BaseSettings)


def load(kind: type[S], environment: Mapping[str, str]) -> S:
    """Read settings from these variables alone.

    Raises:
        ValidationError: a variable is missing or has an invalid value.
    """
    return kind(_env_file=None, **values_of(kind, environment))


def values_of(kind: type[BaseSettings], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables of a settings class by the names of its fields."""
    source = EnvSettingsSource(kind)
    source.env_vars = {name.lower(): value for name, value in environment.items()}
    return source()


def faults_in(error: ValidationError) -> list[str]:
    """Return a line for each fault of the settings, which begins with the name of a variable."""
    return [_explain(details) for details in error.errors(include_url=False)]


def _explain(details: ErrorDetails) -> str:
    message = _message(details)
    if not details["loc"]:
        # A fault in the relation of several variables; its message names them.
        return message
    return f"{str(details['loc'][0]).upper()}{'' if message.startswith(_VERBS) else ':'} {message}"


def _message(details: ErrorDetails) -> str:
    """Return the message of pydantic as the rest of a sentence, with the value if that cannot be a secret."""
    if details["type"] == "missing":
        return "is not set; .env.example shows an example"
    if details["type"] in {"too_short", "string_too_short"}:
        return f"must have at least {details['ctx']['min_length']} characters"
    message = details["msg"].removeprefix("Value error, ").partition(", unable to ")[0]
    message = message.replace("Input should be", "must be", 1)
    return f"{message}, not {details['input']!r}" if details["type"].startswith(_TYPES_TO_SHOW) else message
