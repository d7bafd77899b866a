"""Processes of the project, each forked from a server that has imported the libraries.

Importing them takes a second of CPU time, and most tests start four processes.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).parents[2]

_context = multiprocessing.get_context("forkserver")
# The packages of the services are not among them: each process has to have its own secrets and state.
_context.set_forkserver_preload(
    [
        *(
            "asyncpg",
            "fastapi.middleware.cors",
            "fastapi.staticfiles",
            "httpx",
            "orjson",
            "tenacity",
            "uvicorn",
        ),
        *("sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.ext.asyncio"),
        *("shared.bus.topology", "shared.db.tables", "shared.providers.registry", "shared.service"),
        __name__,
    ]
)


def start(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkServerProcess:
    """Start `python -m` with these arguments in the folder of the project, and return the process.

    Args:
        argv: the name of the module, and its arguments.
        environment: the environment variables.
        log: the file to which the output is appended.
    """
    process = _context.Process(target=_run, args=(argv, dict(environment), log), daemon=True)
    process.start()
    return process


def _run(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(argv)
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - multiprocessing would skip them
