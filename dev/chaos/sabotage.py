"""Runs a service, and cancels or blocks one of its tasks or threads on request.

python -m dev.chaos.sabotage services.sender PORT

`GET /tasks` at the port lists the names of the tasks; `POST /cancel?NAME`, `/block?NAME` and the others below
act on all tasks whose name or coroutine is NAME.
"""

import asyncio
import gc
import runpy
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

Task = asyncio.Task[object]


def name_of(task: Task) -> str:
    """Return the name that the task was given, or that of its coroutine."""
    given = task.get_name()
    return str(getattr(task.get_coro(), "__qualname__", "")) if given.startswith("Task-") else given


def cancel(task: Task) -> None:
    task.cancel()


def block(task: Task) -> None:
    """Detach a task from what it waits for, so that nothing wakes it up any more."""
    waits_for = task._fut_waiter  # type: ignore[attr-defined] # noqa: SLF001
    for callback, _ in list(waits_for._callbacks or ()) if waits_for else ():  # noqa: SLF001
        waits_for.remove_done_callback(callback)


ACTIONS: dict[str, Callable[[Task], None]] = {"/cancel": cancel, "/block": block}


class Saboteur(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer("\n".join(sorted({name_of(task) for task in asyncio.all_tasks(find_loop())})))

    def do_POST(self) -> None:
        action, _, name = self.path.partition("?")
        loop = find_loop()
        if action == "/block-loop":
            loop.call_soon_threadsafe(time.sleep, 600)
        elif action == "/end-log":
            sys.stderr._lines.put(None)  # type: ignore[union-attr] # noqa: SLF001
        else:
            name = name.replace("%20", " ")
            tasks = [task for task in asyncio.all_tasks(loop) if name_of(task) == name]
            for task in tasks:
                loop.call_soon_threadsafe(ACTIONS[action], task)
        self._answer("done")

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def find_loop() -> asyncio.AbstractEventLoop:
    return next(each for each in gc.get_objects() if isinstance(each, asyncio.AbstractEventLoop))


if __name__ == "__main__":
    module, port = sys.argv[1], int(sys.argv[2])
    server = HTTPServer(("127.0.0.1", port), Saboteur)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
