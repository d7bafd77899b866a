"""PostgreSQL refuses to run as root. Where root starts it, it runs as `nobody` instead."""

import os
import pwd
import shutil
from contextlib import suppress
from pathlib import Path

from dev.local_stack.errors import StackError

_NOBODY = 65534
_ROOT = 0


def of_database_server() -> tuple[str, ...]:
    """The command to put before the server's own; empty for an ordinary user.

    The server keeps the right to pass folders that are closed to others, as its binaries and its data
    may well lie below /root, and no other right of root.

    Raises:
        StackError: this is root, and the tool for it is missing.
    """
    if os.geteuid() != _ROOT:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError("as root, PostgreSQL needs setpriv: install util-linux, or run as an ordinary user")
    return (
        setpriv,
        f"--reuid={_NOBODY}",
        f"--regid={_NOBODY}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--securebits=+no_setuid_fixup",
    )


def give_to_database_server(folder: Path) -> None:
    """Raises StackError where the system does not know the user, as in some containers."""
    if os.geteuid() != _ROOT:
        return
    try:
        os.chown(folder, _NOBODY, _NOBODY)
    except OSError as exc:
        raise StackError(f"{folder} cannot be given to user {_NOBODY}: run as an ordinary user") from exc


def check_owner_of_data(folder: Path) -> None:
    """Raises StackError when a data folder of PostgreSQL was made by somebody else."""
    user = os.geteuid()
    owner = folder.stat().st_uid
    if owner != (_NOBODY if user == _ROOT else user):
        maker = "root" if owner == _NOBODY else _name(owner)
        raise StackError(f"{folder} was made by {maker}: start as {maker}, or set DATA_DIR to another folder")


def _name(user: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return f"user {user}"
