"""Settings, which are read from the environment, or else from `.env` in the working directory."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ServiceError


class SettingsError(ServiceError):
    """Some settings are missing or invalid.

    Attributes:
        faults: a sentence for each, with the name of the variable.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def _web_url(value: str) -> str:
    if not _is_web_url(value):
        raise ValueError("is not an http or https URL")
    return value


def _is_web_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its message may quote part of a password
        return False


def _credential(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    # Other characters are not allowed in a header, and the resulting error would reveal the credential.
    if not (text.isascii() and text.isprintable() and " " not in text and text):
        raise ValueError("is empty, or contains characters that are not allowed in credentials")
    return SecretStr(text)


NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
WebUrl = Annotated[NonEmpty, AfterValidator(_web_url)]
Credential = Annotated[SecretStr, AfterValidator(_credential)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class Settings(BaseSettings):
    """Base of all settings. An empty variable counts as one that is not set.

    Attributes:
        log_level: the least severe level that is logged.
        log_format: JSON for programs that read logs, text for people.
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"


class BusSettings(Settings):
    """Settings of every program that connects to NATS.

    Attributes:
        nats_url: `nats://user:password@host:port`, or several servers of a cluster separated by commas.
    """

    nats_url: NonEmpty


class DatabaseSettings(Settings):
    """Settings of every program that connects to PostgreSQL.

    Attributes:
        database_url: `postgresql+asyncpg://user:password@host:port/database`.
        sql_debug: whether every SQL statement is logged.
    """

    database_url: NonEmpty
    sql_debug: bool = False


class PublicUrlSettings(Settings):
    """Settings of programs that refer to the gateway by its public URL.

    Attributes:
        public_base_url: the URL at which providers and recipients reach the gateway.
    """

    public_base_url: WebUrl | None = None


class UnsubscribeSettings(PublicUrlSettings):
    """Settings of the links in e-mails by which recipients unsubscribe.

    Attributes:
        unsubscribe_secret: signs the links, at least 16 characters; without it there are no links.
    """

    unsubscribe_secret: Annotated[SecretStr, Field(min_length=16)] | None = None


class WorkerSettings(BusSettings):
    """Settings of services without an API of their own.

    Attributes:
        health_host: where the health endpoints and the metrics are served.
        health_port: their port; 0 selects any free one.
    """

    health_host: str = "127.0.0.1"
    health_port: Port = 0


S = TypeVar("S", bound=Settings)


def read(kind: type[S], *, required: Sequence[str] = (), **values: Any) -> S:  # noqa: ANN401 - fields
    """Read settings.

    Args:
        kind: the class of the settings.
        required: further fields that must be set.
        values: used instead of the environment.

    Raises:
        SettingsError: some are missing or invalid.
    """
    try:
        settings = kind(**values)
    except ValidationError as exc:
        raise SettingsError(*map(_complaint, exc.errors(include_url=False, include_input=False))) from None
    if missing := [name for name in required if getattr(settings, name) is None]:
        raise SettingsError(*(_missing(name) for name in missing))
    return settings


def load(kind: type[S], *, program: str) -> S:
    """Read settings, or end the program with a line for each fault."""
    try:
        return read(kind)
    except SettingsError as exc:
        exit_with(exc, program=program)


def exit_with(error: SettingsError, *, program: str) -> NoReturn:
    """End the program with a line for each fault."""
    for fault in error.faults:
        print(f"{program}: {fault}", file=sys.stderr)  # noqa: T201 - there is no log yet
    sys.exit(1)


def _complaint(fault: Any) -> str:  # noqa: ANN401 - as pydantic lists it
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0])
    if fault["type"] == "missing":
        return _missing(name)
    return f"{name.upper()}: {str(fault['msg']).removeprefix('Value error, ')}"


def _missing(name: str) -> str:
    return f"{name.upper()} is not set; see .env.example"
