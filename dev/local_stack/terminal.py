"""The terminal, which many processes share."""

import os
import queue
import threading
from collections.abc import Iterable

_KEPT = 10_000
"""Lines that wait for a slow reader before more are dropped."""

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Terminal:
    """Writes lines, each behind the name of who said it.

    The writing is done by a thread, so that a terminal which is paused (Ctrl-S), or a reader of a pipe
    who sleeps, holds up neither the services nor the answer to Ctrl-C. One that is gone is no trouble.
    """

    def __init__(self, descriptor: int, *, names: Iterable[str] = (), colour: bool = False) -> None:
        self._descriptor = descriptor
        self._names = list(names)
        self._width = max(map(len, self._names), default=0)
        self._colour = colour
        self._dropped = 0
        self._waiting: queue.Queue[bytes | None] = queue.Queue(maxsize=_KEPT)
        self._writer = threading.Thread(target=self._write, name="terminal", daemon=True)
        self._writer.start()

    def line(self, name: str, text: str) -> None:
        """Show a line of a process."""
        self.show(f"{self._prefix(name)} {text}")

    def show(self, text: str) -> None:
        """Show a text as it is."""
        if self._dropped:
            text = f"({self._dropped} lines are missing here)\n{text}"
        try:
            self._waiting.put_nowait(f"{text}\n".encode(errors="replace"))
        except queue.Full:
            self._dropped += 1
        else:
            self._dropped = 0

    def close(self, seconds: float = 1) -> None:
        """Give the reader a moment for what is still waiting."""
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._writer.join(seconds)

    def _prefix(self, name: str) -> str:
        prefix = f"{name:<{self._width}} |"
        if not self._colour:
            return prefix
        colour = _COLOURS[self._names.index(name) % len(_COLOURS)] if name in self._names else 37
        return f"\x1b[{colour}m{prefix}\x1b[0m"

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            try:
                while text:
                    text = text[os.write(self._descriptor, text) :]
            except OSError:
                # Nobody reads any more; what comes is taken and forgotten.
                continue
