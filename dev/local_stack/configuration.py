"""The configuration of the stack, from the environment and `.env`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from dev.local_stack.errors import StackError
from dev.local_stack.settings import LocalStackSettings, load
from shared.settings import SettingsError


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The configuration of a stack.

    Attributes:
        root: folder of the project.
        environment: the variables for the processes; they may be secret.
        notes: remarks for the person who starts it.
    """

    root: Path
    settings: LocalStackSettings
    environment: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def data_folder(self) -> Path:
        return self.root / self.settings.data_dir.expanduser()

    @property
    def log_folder(self) -> Path:
        return self.data_folder / "log"

    @property
    def database_url(self) -> str | None:
        return _revealed(self.settings.database_url)

    @property
    def nats_url(self) -> str | None:
        return _revealed(self.settings.nats_url)

    @property
    def owns_servers(self) -> bool:
        """Whether PostgreSQL and NATS are started here."""
        return self.database_url is None


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@dataclass(frozen=True)
class Environment:
    """The variables of the environment and, if not set there, of `.env`. Empty ones count as not set.

    Attributes:
        names_in_file: the names in `.env`.
    """

    variables: Mapping[str, str] = field(repr=False)
    names_in_file: tuple[str, ...] = ()


def read_environment(root: Path) -> Environment:
    """Read the environment and `.env` of the folder. Raises StackError if the file cannot be read."""
    path = root / ".env"
    try:
        file = dotenv_values(path)
    except (OSError, ValueError) as exc:
        raise StackError(f"{path} cannot be read: {exc}") from exc
    return Environment({**_without_empty(file), **_without_empty(os.environ)}, tuple(file))


def _without_empty(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value is not None and value.strip()}


def configure(environment: Mapping[str, str], root: Path, *, notes: Sequence[str] = ()) -> Configuration:
    """Decide what to run.

    Raises:
        StackError: a setting of the local stack has a fault; there is a line for each.
    """
    try:
        settings = load(LocalStackSettings, environment)
    except SettingsError as exc:
        raise StackError("\n".join(exc.faults)) from exc
    return Configuration(root=root, settings=settings, environment=environment, notes=tuple(notes))
