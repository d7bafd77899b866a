"""`make psql`: psql on the database in use."""

import os
import shutil
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from dev.local_stack.configuration import Configuration
from dev.local_stack.data_folder import is_in_use
from dev.local_stack.database import server_program
from dev.local_stack.errors import StackError
from dev.local_stack.state import StateFile


def open_psql(configuration: Configuration, command: str | None) -> int:
    """Replace this process with psql.

    Args:
        configuration: names the database if the stack is not running.
        command: an SQL statement to run instead of reading statements from the terminal.

    Raises:
        StackError: no database is in use.
    """
    url, password = _without_password(_database_url(configuration))
    program = shutil.which("psql") or server_program("psql")
    arguments = [program, url, *(["--command", command] if command else [])]
    environment: Mapping[str, str] = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    os.execve(program, arguments, environment)


def _database_url(configuration: Configuration) -> str:
    folder = configuration.data_folder
    if is_in_use(folder) and (state := StateFile(folder).read()):
        return state.database_url
    if configuration.database_url is not None:
        return configuration.database_url
    raise StackError("no database is running: start it with `make run`, or set DATABASE_URL")


def _without_password(url: str) -> tuple[str, str | None]:
    """Return a URL as psql takes it, and the password, which does not belong on a command line."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    of_psql = parts._replace(
        scheme="postgresql",
        netloc=f"{name}{at}{place}",
        # The parameter of asyncpg under its name in libpq.
        query=urlencode([("sslmode", value) for key, value in parse_qsl(parts.query) if key == "ssl"]),
    )
    return urlunsplit(of_psql), unquote(password) or None
