"""One run of a plan: from its start to the signal that ends it."""

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from signal import Signals

from dev.local_stack.errors import NotStartedError, StackError
from dev.local_stack.programs import Plan
from dev.local_stack.supervisor import Observer, Supervisor
from dev.local_stack.terminal import Terminal

_LOOK_EVERY = 1.0
"""Seconds between two checks that the terminal is still there."""

_KILLED = 130
"""The exit status that shells give to a program that Ctrl-C has ended."""


class Stop:
    """The request to stop: Ctrl-C, SIGTERM, or a terminal that was closed. A second Ctrl-C means to kill."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self.in_a_hurry = False
        self.on_hurry: Callable[[], None] = lambda: None
        self._terminals = select.poll()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (Signals.SIGINT, Signals.SIGTERM):
            loop.add_signal_handler(number, self._receive, number)
        # Under nohup, the stack is meant to survive the end of the terminal.
        if signal.getsignal(Signals.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(Signals.SIGHUP, self._receive, Signals.SIGHUP)
            for descriptor in filter(os.isatty, range(3)):
                self._terminals.register(descriptor, 0)

    async def wait(self) -> None:
        while not self.wanted:
            if self._terminal_is_gone():
                self._wanted.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), _LOOK_EVERY)

    def _terminal_is_gone(self) -> bool:
        """Return whether it was closed. Under `make`, the signal for that reaches only `make`."""
        return any(event & select.POLLHUP for _, event in self._terminals.poll(0))

    @property
    def wanted(self) -> bool:
        return self._wanted.is_set()

    def _receive(self, number: Signals) -> None:
        # One request may deliver the same signal twice: to the process group, and passed on by `make`.
        if self.wanted and number is Signals.SIGINT:
            self.in_a_hurry = True
            self.on_hurry()
        self._wanted.set()


def reporting_errors(action: Callable[[], int], *, program: str = "run") -> int:
    """Return the exit status of the action. If it fails, print the reason on standard error and return 1."""
    try:
        return action()
    except StackError as exc:
        lines = [f"{program}: {line}" for line in str(exc).splitlines()]
        details = exc.last_lines if isinstance(exc, NotStartedError) else ()
        print(*lines, *(f"  {line}" for line in details), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Before the first process was started, or after the last one has ended.
        return _KILLED


def carry_out(plan: Plan, welcome: str, *, introduction: str = "", observe: Observer = lambda _: None) -> int:
    """Run the plan on the terminal of standard output. Returns and raises like `run`.

    Args:
        plan: what to run.
        welcome: is shown once all of it is ready.
        introduction: is shown first.
        observe: is called with the state of the processes whenever it changes.
    """
    output = sys.stdout.fileno()
    colour = os.isatty(output) and "NO_COLOR" not in os.environ
    terminal = Terminal(output, names=plan.names, colour=colour)
    if introduction:
        terminal.show(introduction)
    try:
        return asyncio.run(run(plan, terminal, on_ready=lambda: terminal.show(welcome), observe=observe))
    finally:
        terminal.close()


async def run(
    plan: Plan, terminal: Terminal, *, on_ready: Callable[[], None], observe: Observer = lambda _: None
) -> int:
    """Run the plan until a signal ends it.

    Returns:
        the exit status: 0 when all was stopped in order, 130 when it was killed.

    Raises:
        StackError: something did not start. All that did is stopped by then.
    """
    stop = Stop()
    stop.listen()
    supervisor = Supervisor(plan, terminal, observe)
    stop.on_hurry = supervisor.kill
    # The progress of the start is easier to read without the output of the processes in between.
    terminal.hold()
    try:
        await _unless_stopped(stop, supervisor.start())
        if not stop.wanted:
            on_ready()
            terminal.release()
            await _unless_stopped(stop, _watch(supervisor))
    finally:
        if stop.wanted:
            terminal.show("\nStopping. Press Ctrl-C again to kill the processes.")
        await supervisor.stop()
        if stop.wanted:
            terminal.show("Stopped.")
    return _KILLED if stop.in_a_hurry else 0


async def _watch(supervisor: Supervisor) -> None:
    await supervisor.until_broken()
    raise StackError("no process is left")


async def _unless_stopped(stop: Stop, coroutine: Coroutine[None, None, None]) -> None:
    """Await the coroutine, or cancel it when the request to stop comes first."""
    task = asyncio.ensure_future(coroutine)
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done() and not stop.wanted:
        return task.result()
    task.cancel()
    # An error while it is being stopped is a consequence of that.
    with suppress(asyncio.CancelledError, StackError):
        await task
    return None
