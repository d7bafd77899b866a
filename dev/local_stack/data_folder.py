"""The folder for what is to be there at the next start. One supervisor uses it at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.local_stack.errors import StackError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and have it for oneself while inside. A crash releases it, too.

    Raises:
        StackError: another has it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+", encoding="ascii")
    except OSError as exc:
        raise StackError(f"{folder}: {exc.strerror}: set DATA_DIR to a folder of your own") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            raise StackError(f"process {lock.read().strip()} is running already, with {folder}") from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
