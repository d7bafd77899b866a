"""Settings, which are read from the environment, or else from `.env` in the working directory."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ServiceError

_TYPES_TO_SHOW = ("int", "float", "bool", "literal", "enum", "greater", "less")
"""Beginnings of the types of pydantic's errors about numbers, switches and choices, which are not secret."""


MIN_SECRET = 16
"""The minimum number of characters or bytes of a secret that an operator chooses."""

_MIN_ISSUED_SECRET = 8
"""The secrets that providers issue are longer; this only finds values that are not secrets at all."""


class SettingsError(ServiceError):
    """Some settings are missing or invalid.

    Attributes:
        faults: a sentence for each, which begins with the name of the variable.
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


def _signing(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _MIN_ISSUED_SECRET:
        raise ValueError(f"must have at least {_MIN_ISSUED_SECRET} characters")
    return value


NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
WebUrl = Annotated[NonEmpty, AfterValidator(_web_url)]
ProviderUrl = Annotated[WebUrl, Field(repr=False)]
"""The URL of a provider, which may contain credentials. It is not shown with the other settings."""

Credential = Annotated[SecretStr, AfterValidator(_credential)]
SigningCredential = Annotated[SecretStr, AfterValidator(_credential), AfterValidator(_signing)]
"""A credential that a provider issues and signs with: anybody who guesses it can pose as the provider."""

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

    nats_url: NonEmpty = Field(repr=False)


class DatabaseSettings(Settings):
    """Settings of every program that connects to PostgreSQL.

    Attributes:
        database_url: `postgresql+asyncpg://user:password@host:port/database`.
        sql_debug: whether every SQL statement is logged.
    """

    database_url: NonEmpty = Field(repr=False)
    sql_debug: bool = False


class MediaSettings(Settings):
    """Settings of the store for the media of inbound messages.

    Attributes:
        media_store: a folder, or `s3://bucket/prefix`; without it, media are not kept.
        media_store_endpoint: the URL of an S3-compatible store; that of AWS by default.
        media_store_region: its region.
        media_store_access_key_id, media_store_secret_access_key: the credentials; without them, those of the
            environment or the machine.
    """

    media_store: NonEmpty | None = None
    media_store_endpoint: WebUrl | None = None
    media_store_region: NonEmpty = "us-east-1"
    media_store_access_key_id: Credential | None = None
    media_store_secret_access_key: Credential | None = None

    @model_validator(mode="after")
    def _require_both_credentials_or_neither(self) -> Self:
        if (self.media_store_access_key_id is None) != (self.media_store_secret_access_key is None):
            raise ValueError("MEDIA_STORE_ACCESS_KEY_ID and MEDIA_STORE_SECRET_ACCESS_KEY need each other")
        return self


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

    unsubscribe_secret: Annotated[SecretStr, Field(min_length=MIN_SECRET)] | None = None


class WorkerSettings(BusSettings):
    """Settings of services without an API of their own.

    Attributes:
        health_host: where the health endpoints and the metrics are served.
        health_port: their port; 0 selects any free one.
    """

    health_host: str = "127.0.0.1"
    health_port: Port = 0


S = TypeVar("S", bound=BaseSettings)
T = TypeVar("T")


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
        return _with_required(kind, required)(**values)
    except ValidationError as exc:
        raise SettingsError(*faults_in(exc)) from None


def collect(functions: Iterable[Callable[[], T]]) -> list[T]:
    """Call functions that read settings, all of them even if some fail, and return their results.

    Raises:
        SettingsError: some settings are missing or invalid. If several functions read the same variable, it
            has the faults that the first of them found.
    """
    results: list[T] = []
    faults: list[str] = []
    for function in functions:
        try:
            results.append(function())
        except SettingsError as exc:
            known = {_variable_of(fault) for fault in faults}
            faults += [fault for fault in exc.faults if _variable_of(fault) not in known]
    if faults:
        raise SettingsError(*faults)
    return results


def load(kind: type[S], *, program: str, check: Callable[[], object] = lambda: None) -> S:
    """Read settings, or end the program with a line for each fault.

    Args:
        kind: the class of the settings.
        program: its name, with which each line begins.
        check: reads further settings of the program; it is called even if these have faults.
    """
    try:
        collect((partial(read, kind), check))
        return read(kind)
    except SettingsError as exc:
        for fault in exc.faults:
            print(f"{program}: {fault}", file=sys.stderr)  # noqa: T201 - there is no log yet
        sys.exit(1)


def faults_in(error: ValidationError) -> list[str]:
    """Return a sentence for each fault of the settings, which begins with the name of the variable.

    The message of a validator has a line for each fault.
    """
    return [fault for details in error.errors(include_url=False) for fault in _explain(details)]


def _with_required(kind: type[S], names: Sequence[str]) -> type[S]:
    """Return the class of settings in which these fields have no default.

    Pydantic then reports those that are missing along with all other faults.
    """
    if not names:
        return kind
    fields: dict[str, Any] = {name: (kind.model_fields[name].rebuild_annotation(), ...) for name in names}
    return create_model(kind.__name__, __base__=kind, **fields)


def _variable_of(fault: str) -> str:
    return re.split(r"\W", fault, maxsplit=1)[0]


def _explain(details: ErrorDetails) -> list[str]:
    lines = _message(details).splitlines()
    if not details["loc"]:
        # The fault concerns several variables; its message names them.
        return lines
    name = str(details["loc"][0]).upper()
    if details["type"] == "missing":
        return [f"{name} is not set; see .env.example"]
    return [f"{name}: {line}" for line in lines]


def _message(details: ErrorDetails) -> str:
    """Return the message of pydantic in our words, with the value if that cannot be a secret."""
    if details["type"] in {"too_short", "string_too_short"}:
        length = details["ctx"]["min_length"]
        return "must not be empty" if length == 1 else f"must have at least {length} characters"
    message = details["msg"].removeprefix("Value error, ").partition(", unable to ")[0]
    message = message.replace("Input should be", "must be", 1)
    return f"{message}, not {details['input']!r}" if details["type"].startswith(_TYPES_TO_SHOW) else message
