"""A log of each process, in the data folder."""

import os
import shutil
from collections.abc import Sequence
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

from dev.local_stack.errors import StackError

_LIMIT = 10 * 1024 * 1024
"""Maximum size in bytes of a log, and of the previous one, which is kept."""


class LogFile(RotatingFileHandler):
    """A log that holds the output of one process. A full disk loses lines and disturbs nothing else."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / f"{name}.log", maxBytes=_LIMIT, backupCount=1, encoding="utf-8", delay=True)

    def write(self, line: str) -> None:
        self.handle(makeLogRecord({"msg": line}))

    def handleError(self, record: LogRecord) -> None:  # noqa: N802 - as the base class names it
        """Drop the line."""


def show_logs(folder: Path, *, service: str | None, tail: int, follow: bool) -> int:
    """Replace this process with `tail`, which shows the end of the logs.

    Args:
        folder: the folder of the logs.
        service: the name of a process, or of a service with all its processes; None for all.
        tail: number of lines of each log.
        follow: show new lines until Ctrl-C.

    Raises:
        StackError: there are no such logs.
    """
    logs = _logs(folder, service)
    program = shutil.which("tail")
    if program is None:
        raise StackError(f"`tail` is not installed; the logs are in {folder}")
    names = [log.name for log in logs]
    os.chdir(folder)
    os.execv(program, [program, "-n", str(tail), *(["-F"] if follow else []), *names])


def _logs(folder: Path, service: str | None) -> Sequence[Path]:
    logs = sorted(folder.glob("*.log"))
    if not logs:
        raise StackError(f"there are no logs in {folder} yet; `make run` writes them")
    chosen = [log for log in logs if service in (None, log.stem, log.stem.partition("-")[0])]
    if not chosen:
        raise StackError(f"{service} has no log; there are: {', '.join(log.stem for log in logs)}")
    return chosen
