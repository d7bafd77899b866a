"""Services as processes."""

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from tests.waiting import eventually

_ROOT = Path(__file__).parents[1]

_MODULES = (
    *(f"services.{name}.app" for name in ("gateway", "ingest", "sender", "notifier")),
    *("mock_providers.app", "mock_providers.registry"),
)

_STOP_SECONDS = 20

# Imports take most of the time of a start. Services are therefore forks of a process that has already
# imported the packages, but has no threads, event loop or settings yet.
_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload([__name__, *_MODULES])


def _run(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Do what `python -m` does with these arguments."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(_ROOT)
    sys.argv = [*arguments]
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        # Forks do not run the functions of atexit, by which the last lines would be written to the log.
        if sys.stderr is not sys.__stderr__:
            sys.stderr.close()
            sys.stderr = sys.__stderr__


class Process:
    """A service of the project as a process, which a test may kill and restart.

    Args:
        module: the module that `python -m` runs.
        url: the base URL of its API, or of its health endpoints if it has no API.
        environment: its environment variables, in addition to those of this process.
        log: the file for its output.
        health_url: the base URL of its health endpoints.
    """

    def __init__(
        self, module: str, url: str, environment: Mapping[str, str], log: Path, *, health_url: str
    ) -> None:
        self.url = url
        self.health_url = health_url
        self._module = module
        self._environment = environment
        self._log = log
        self._process: BaseProcess | None = None

    def start(self) -> None:
        environment = {**os.environ, **self._environment}
        arguments = (self._module.split(), environment, self._log)
        self._process = _fork.Process(target=_run, args=arguments, daemon=True)
        self._process.start()

    @property
    def status(self) -> int | None:
        """The exit status of the process, or None while it is running."""
        return self._process.exitcode if self._process else None

    async def until_ready(self, client: httpx.AsyncClient, path: str) -> None:
        async def is_ready() -> bool:
            assert self._process is not None
            assert self._process.exitcode is None, f"{self._module} ended: {self._log.read_text()[-2000:]}"
            try:
                return (await client.get(f"{self.url}{path}")).is_success
            except httpx.TransportError:
                return False

        await eventually(is_ready)

    def log(self) -> str:
        return self._log.read_text()

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, and wait until the process has ended."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.exitcode is None:
            assert process.pid
            with suppress(ProcessLookupError):
                os.kill(process.pid, how)
        await asyncio.to_thread(process.join, _STOP_SECONDS)
        if process.exitcode is None:
            process.kill()  # or else the tests would wait for it at their end
            raise AssertionError(f"{self._module} has not stopped")
