"""Child processes. Each has its own process group, is stopped in bounded time, and does not outlive us."""

import asyncio
import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import IO

_POLL_EVERY = 0.05
_KILL_GRACE = 6
"""Seconds after the kill signal. PostgreSQL gives its own children five of them."""
_LAST_LINES = 20
_LONGEST_LINE = 64 * 1024
_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, and how to end it.

    Attributes:
        name: a short name, for people.
        log: the file that the output is appended to; without one, `Child.relay` passes it on.
        privileges: a command that runs its arguments as another user.
        grace: seconds between the stop signal and the kill signal.
        kill_signal: the signal that ends the process at once, also if the supervisor is killed.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    log: Path | None = None
    privileges: tuple[str, ...] = ()
    stop_signal: Signals = Signals.SIGTERM
    kill_signal: Signals = Signals.SIGKILL
    grace: float = 10
    standard_input: str = ""


class Child:
    """A running command. It belongs to no event loop, so that a fixture can start it and a test stop it."""

    def __init__(self, command: Command) -> None:
        """Start the command. Raises OSError if the system cannot start another process."""
        self.command = command
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._log_start = _size(command.log)
        self._group_ended = False
        self._process = _start(command)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """None while it runs, then the exit status, or the negated number of the signal that ended it."""
        status = self._process.poll()
        if status is not None and not self._group_ended:
            self._group_ended = True
            self._end_group()
        return status

    async def wait(self) -> int:
        # Polling is the only way that works without a thread, in any event loop and on any system.
        while (status := self.status) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_EVERY)
        return status

    async def relay(self, on_line: Callable[[str], None]) -> None:
        """Pass the output on, line by line, until it ends. A command with a log has no other output."""
        if self._process.stdout is not None:
            async for line in _lines_of(self._process.stdout):
                self._lines.append(line)
                on_line(line)

    def last_lines(self) -> list[str]:
        if self.command.log is None:
            return list(self._lines)
        with suppress(OSError), self.command.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
        return []

    def signal(self, number: Signals) -> None:
        """Send a signal if the process has not ended."""
        if self.status is None:
            self._process.send_signal(number)

    async def stop(self) -> None:
        """Ask it to stop, and kill it once its grace is over."""
        self.signal(self.command.stop_signal)
        if not await self._ends_within(self.command.grace):
            await self.kill()

    async def kill(self) -> None:
        self.signal(self.command.kill_signal)
        if not await self._ends_within(_KILL_GRACE):
            self.signal(Signals.SIGKILL)
            await self._ends_within(_KILL_GRACE)

    async def _ends_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), seconds)
        return self.status is not None

    def _end_group(self) -> None:
        """Kill the processes that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, Signals.SIGKILL)


async def run_to_end(command: Command, on_line: Callable[[str], None]) -> tuple[int, list[str]]:
    """Run a command that ends on its own. If the caller is cancelled, the command is killed.

    Returns:
        its exit status and its last lines.
    """
    child = Child(command)
    try:
        await child.relay(on_line)
        return await child.wait(), child.last_lines()
    finally:
        await child.kill()


def describe(status: int) -> str:
    """Return a description of how a process ended, such as `was ended by SIGKILL`."""
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was ended by {Signals(-status).name}"
    return f"was ended by signal {-status}"


def _start(command: Command) -> "subprocess.Popen[bytes]":
    argv = [*command.privileges, *_tied_to_us(command.kill_signal), *command.argv]
    if command.log is None:
        return _spawn(command, argv, subprocess.PIPE)
    with command.log.open("ab") as log:
        return _spawn(command, argv, log.fileno())


def _spawn(command: Command, argv: list[str], output: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        argv,
        cwd=command.folder,
        env=dict(command.environment),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        # So that Ctrl-C on the terminal reaches only the process that starts this one.
        start_new_session=True,
    )
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(command.standard_input.encode())
    return process


def _tied_to_us(ending_signal: Signals) -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(int(ending_signal))]


def _size(log: Path | None) -> int:
    return log.stat().st_size if log is not None and log.exists() else 0


async def _lines_of(pipe: IO[bytes]) -> AsyncIterator[str]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        rest = b""
        while chunk := await reader.read(_LONGEST_LINE):
            *complete, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                complete, rest = [*complete, rest], b""
            for line in complete:
                yield line.decode(errors="replace").rstrip("\r")
        if rest:
            yield rest.decode(errors="replace")
    finally:
        transport.close()
