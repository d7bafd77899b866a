"""Ends the process when a part of it has ended or is stuck, so that it is started again.

A task that runs as long as the process does is started with `supervise`, and its loop calls `beat` in every
iteration. The process has failed if such a task is cancelled, raises an exception, or completes no iteration
for six seconds. It then stops as it does after a signal. Nine seconds after its last sign of life, a thread
ends it, even if the event loop is blocked.

Time is counted in ticks of the event loop and of the thread, so that the time during which a process was
suspended does not count.
"""

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

_log = structlog.get_logger()

_TICK = 1.0
"""Seconds."""

_PATIENCE = 5
"""Ticks that an iteration of a loop may take. Some contain a request to NATS, which may take four seconds."""

_LIFETIME = 8
"""Ticks of the thread without one of the event loop, after which the process ends at once."""

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Loop:
    name: str
    silent_for: int = 0


class Supervisor:
    """The supervision of this process.

    Attributes:
        failure: the reason why the process is ending; None while it is healthy.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self._loops: dict[asyncio.Task[Any], _Loop] = {}
        self._has_loops = False
        self._silent_for = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def install(self) -> None:
        """Supervise everything that is started from now on."""
        _supervisor.set(self)

    def start(self) -> None:
        """Start the thread; from now on, `tick` has to be called."""
        self._thread.start()

    def show_life(self) -> None:
        """Report that the event loop is not blocked; it calls this several times a second."""
        if self.failure is None:
            self._silent_for = 0
        if self._thread.ident is not None:
            # The thread cannot run while code in C, such as a regular expression, holds the interpreter's
            # lock. This timer counts CPU time, and its signal ends the process without the interpreter.
            signal.setitimer(signal.ITIMER_VIRTUAL, _LIFETIME)

    def tick(self) -> None:
        """Check all loops; the event loop calls this once a second."""
        self.show_life()
        if self._thread.ident is not None and not self._thread.is_alive():
            self.fail("the watchdog has ended")
        self._has_loops |= bool(self._loops)
        if self._has_loops and not self._loops:
            self.fail("no task is left")
        for loop in self._loops.values():
            loop.silent_for += 1
            if loop.silent_for > _PATIENCE:
                self.fail(f"{loop.name} is stuck", after=loop.silent_for)

    def stop(self) -> None:
        """Stop watching the process, which may now take any time to stop, unless it has failed."""
        self._is_stopping = True
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def fail(self, failure: str, *, after: int = 0) -> None:
        """End the process, in fewer ticks if the failure began some ticks ago (`after`)."""
        if self.failure is None:
            self.failure = failure
            self._silent_for = after
            _log.error("process_failed", reason=failure)

    def start_task(self, name: str, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        loop = _Loop(name)
        task = asyncio.create_task(_run(loop, coroutine), name=name)
        self._loops[task] = loop
        task.add_done_callback(self._end)
        return task

    def release(self, task: asyncio.Task[Any]) -> None:
        self._loops.pop(task, None)

    def _end(self, task: asyncio.Task[Any]) -> None:
        loop = self._loops.pop(task, None)
        if loop is None:
            return
        if task.cancelled():
            self.fail(f"{loop.name} was cancelled")
        elif error := task.exception():
            self.fail(f"{loop.name} failed: {error!r}")

    def _watch(self) -> None:
        while not (self._is_stopping and self.failure is None):
            time.sleep(_TICK)
            self._silent_for += 1
            if self._silent_for > _LIFETIME:
                self._log_end()
                sys.stderr.close()
                os._exit(1)

    def _log_end(self) -> None:
        """Log the stack of the main thread; writing to stderr directly could take forever."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented
        stack = "".join(traceback.format_stack(frame))
        _log.critical("process_killed", reason=self.failure or "the event loop is blocked", details=stack)


_supervisor: ContextVar[Supervisor | None] = ContextVar("supervisor", default=None)
_loop: ContextVar[_Loop | None] = ContextVar("loop", default=None)


async def _run(loop: _Loop, coroutine: Coroutine[Any, Any, T]) -> T:
    _loop.set(loop)
    return await coroutine


def supervise(name: str, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that the process cannot do without, and whose loop calls `beat`.

    It may return, but if it raises an exception or is cancelled, the process ends; `release` it before you
    cancel it.
    """
    if supervisor := _supervisor.get():
        return supervisor.start_task(name, coroutine)
    return asyncio.create_task(coroutine, name=name)


@asynccontextmanager
async def running(name: str, coroutine: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Supervise a task for the duration of the block, and cancel it then."""
    task = supervise(name, coroutine)
    try:
        yield
    finally:
        release(task).cancel()


def release(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """Return a task that may now end in any way."""
    if supervisor := _supervisor.get():
        supervisor.release(task)
    return task


def fail(failure: str) -> None:
    """End the process if it is supervised."""
    if supervisor := _supervisor.get():
        supervisor.fail(failure)


def failure() -> str | None:
    """Return the reason why the process is ending, or None."""
    supervisor = _supervisor.get()
    return supervisor.failure if supervisor else None


def beat() -> None:
    """Record that the loop of the current task has made progress."""
    if loop := _loop.get():
        loop.silent_for = 0


async def patiently(awaitable: Awaitable[T]) -> T:
    """Await something that may take any time, such as the end of an outage, without counting as stuck.

    A cancellation always ends it. `asyncio.wait_for`, which nats-py uses for its requests, ignores one that
    comes at the same moment as the result (until Python 3.12).
    """
    future = asyncio.ensure_future(awaitable)
    try:
        while not future.done():
            beat()
            await asyncio.wait({future}, timeout=_TICK)
        beat()
        return future.result()
    finally:
        if future.cancel():
            # nats-py raises an error instead if its connection is closed, and asyncio must not log it.
            future.add_done_callback(lambda cancelled: cancelled.cancelled() or cancelled.exception())
