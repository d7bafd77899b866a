"""Runs PostgreSQL as `nobody` if root starts it, because it refuses to run as root."""

import os
import pwd
import shutil
from contextlib import suppress
from pathlib import Path

from dev.local_stack.errors import StackError

_NOBODY = 65534
_ROOT = 0


def of_database_server() -> tuple[str, ...]:
    """Return the command that has to precede the server's own; it is empty for an ordinary user.

    Of root's privileges, the server keeps only the one to enter folders that are closed to other users,
    because its programs and its data may be below /root.

    Raises:
        StackError: the user is root, and the program for this is missing.
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
    """Make the server the owner of a folder. Raises StackError if the system does not allow it."""
    if os.geteuid() != _ROOT:
        return
    try:
        os.chown(folder, _NOBODY, _NOBODY)
    except OSError as exc:
        raise StackError(f"{folder} cannot be given to user {_NOBODY}: run as an ordinary user") from exc


def check_owner_of_data(folder: Path) -> None:
    """Raise StackError if another user created a data folder of PostgreSQL."""
    user = os.geteuid()
    owner = folder.stat().st_uid
    if owner != (_NOBODY if user == _ROOT else user):
        creator = "root" if owner == _NOBODY else _name(owner)
        raise StackError(
            f"{folder} was created by {creator}: start as {creator}, or set DATA_DIR to another folder"
        )


def _name(user: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return f"user {user}"
