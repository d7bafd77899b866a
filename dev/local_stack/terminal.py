"""The terminal, which many processes share."""

import os
import queue
import threading
from collections import deque
from collections.abc import Iterable

_KEPT = 10_000
"""Lines that wait for a slow reader before more are dropped."""
_HELD = 1_000

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_ERASE_LINE = "\r\x1b[K"
_USUAL_COLUMNS = 80


class Terminal:
    """Writes lines, each prefixed with the name of the process that printed it.

    A thread does the writing, so that neither a paused terminal (Ctrl-S) nor a reader that does not read its
    pipe holds up the services or the reaction to Ctrl-C. Once nobody can read any more, lines are dropped.
    """

    def __init__(self, descriptor: int, *, names: Iterable[str] = (), colour: bool = False) -> None:
        self._descriptor = descriptor
        self._names = list(names)
        self._width = max(map(len, self._names), default=0)
        self.can_redraw = os.isatty(descriptor)
        self._colour = colour
        self._status = ""
        self._held: deque[str] | None = None
        self._dropped = 0
        self._waiting: queue.Queue[bytes | None] = queue.Queue(maxsize=_KEPT)
        self._writer = threading.Thread(target=self._write, name="terminal", daemon=True)
        self._writer.start()

    def line(self, name: str, text: str) -> None:
        """Show a line of a process, at once or after `release`."""
        line = f"{self._prefix(name)} {text}"
        if self._held is None:
            self.show(line)
        else:
            self._held.append(line)

    def show(self, text: str) -> None:
        """Show a text as it is."""
        self._put(f"{text}\n{self._status}")

    def set_status(self, text: str) -> None:
        """Show a text below everything else until it is replaced; only where `can_redraw`."""
        text = self._fitting(text)
        if text != self._status:
            self._put(text)
            self._status = text

    def hold(self) -> None:
        """Hold the lines of processes back until `release`."""
        self._held = deque(maxlen=_HELD)

    def release(self) -> None:
        """Show the lines that were held back, and later ones at once."""
        held, self._held = self._held, None
        for line in held or ():
            self.show(line)

    def close(self, seconds: float = 1) -> None:
        """Give the reader a moment to read the remaining lines."""
        self.set_status("")
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._writer.join(seconds)

    def _put(self, text: str) -> None:
        if self._status:
            text = _ERASE_LINE + text
        if self._dropped:
            text = f"({self._dropped} lines are missing here)\n{text}"
        try:
            self._waiting.put_nowait(text.encode(errors="replace"))
        except queue.Full:
            self._dropped += 1
        else:
            self._dropped = 0

    def _fitting(self, text: str) -> str:
        """Cut a text to one line, as a longer one could not be erased."""
        try:
            columns = os.get_terminal_size(self._descriptor).columns or _USUAL_COLUMNS
        except OSError:
            columns = _USUAL_COLUMNS
        return text[: columns - 1]

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
                # Nobody reads any more; the text is dropped.
                continue
