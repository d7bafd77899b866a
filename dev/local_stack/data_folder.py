"""The folder for the data, the logs and the state. One supervisor uses it at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_urlsafe
from typing import IO

from dev.local_stack.errors import StackError

_WEBHOOK_KEY = "webhook.key"
_CONTENTS = (
    "postgres",
    "postgres.unfinished",
    "nats",
    "media",
    _WEBHOOK_KEY,
    "log",
    "state.json",
    "state.unfinished",
    "lock",
)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder if it is missing, and lock it for the block, or until the process ends.

    Raises:
        StackError: another supervisor uses it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(folder).open("a+", encoding="ascii")
    except OSError as exc:
        raise StackError(f"{folder}: {exc.strerror}: set DATA_DIR to a folder that you can write to") from exc
    with lock:
        _acquire(lock, folder)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def webhook_key(folder: Path) -> str:
    """Return the key that encrypts the secrets of webhook endpoints; the first call creates it.

    Raises:
        StackError: it cannot be read or written.
    """
    path = folder / _WEBHOOK_KEY
    try:
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(token_urlsafe(32), encoding="ascii")
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise StackError(f"{path} cannot be used: {exc}") from exc


def is_in_use(folder: Path) -> bool:
    """Return whether a supervisor uses the folder."""
    try:
        with _lock_file(folder).open(encoding="ascii") as lock:
            _acquire(lock, folder)
    except (OSError, StackError) as exc:
        return isinstance(exc, StackError)
    return False


def contents(folder: Path) -> list[Path]:
    """Return the paths that a supervisor has created in the folder, the lock last."""
    return [path for name in _CONTENTS if (path := folder / name).exists()]


def delete_contents(folder: Path) -> None:
    """Delete what a supervisor has created in the folder, and the folder itself if it is then empty.

    Raises:
        StackError: a supervisor uses it, or something cannot be deleted.
    """
    with locked(folder):
        try:
            for path in contents(folder):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
        except OSError as exc:
            raise StackError(f"{exc.filename} cannot be deleted: {exc.strerror}") from exc


def _lock_file(folder: Path) -> Path:
    return folder / "lock"


def _acquire(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.seek(0)
        raise StackError(f"process {lock.read().strip()} is running with the data in {folder}") from exc
