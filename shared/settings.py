"""Settings come from the environment, and from `.env` in the working folder for what it does not have."""

import sys
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _web_url(value: str) -> str:
    if not _is_web_url(value):
        raise ValueError("is not an http or https URL")
    return value


def _is_web_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # whose message repeats what may be a part of a password
        return False


def _credential(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    # Anything else would not go into a header, and the error of that would show it.
    if not (text.isascii() and text.isprintable() and " " not in text and text):
        raise ValueError("is empty, or has characters that no credential has")
    return SecretStr(text)


NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
WebUrl = Annotated[NonEmpty, AfterValidator(_web_url)]
Credential = Annotated[SecretStr, AfterValidator(_credential)]
UnsubscribeSecret = Annotated[SecretStr, Field(min_length=16)]
"""Signs links, which anybody may try to guess from; the gateway and the sender share it."""

Port = Annotated[int, Field(ge=0, le=65_535)]


class Settings(BaseSettings):
    """Base of all settings: an empty variable counts as one that is not set.

    Attributes:
        log_level: least severe level that is logged.
        log_format: JSON for programs that read logs, text for people.
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"


class BusSettings(Settings):
    """For whoever talks to NATS."""

    nats_url: NonEmpty


class DatabaseSettings(Settings):
    """For whoever talks to PostgreSQL: `postgresql+asyncpg://user:password@host:port/database`."""

    database_url: NonEmpty
    sql_debug: bool = False


class WorkerSettings(BusSettings):
    """For services without an API of their own: where they serve their health and metrics.

    Port 0 is any free one.
    """

    health_host: str = "127.0.0.1"
    health_port: Port = 0


S = TypeVar("S", bound=Settings)


def load(kind: type[S], *, program: str) -> S:
    """Read the settings, or end the program with a line on what is wrong with which variable."""
    try:
        return kind()
    except ValidationError as exc:
        faults = exc.errors(include_url=False, include_input=False)
    for fault in faults:
        name = str(fault["loc"][0]).upper() if fault["loc"] else "settings"
        if fault["type"] == "missing":
            complaint = f"{name} is not set; .env.example shows how"
        else:
            complaint = f"{name}: {fault['msg'].removeprefix('Value error, ')}"
        print(f"{program}: {complaint}", file=sys.stderr)  # noqa: T201 - there is no log yet
    sys.exit(1)
