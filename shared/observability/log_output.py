"""Writes log lines in a thread, so that no caller waits for their reader, or fails when it does."""

import atexit
import os
import threading
from io import TextIOBase
from queue import Empty, SimpleQueue

from shared.observability.metrics import LOG_LINES_DROPPED

_MAX_LINES = 4_096
"""Lines that wait while the output does not accept any. Further ones are dropped."""

_MAX_BATCH = 256
"""Lines that are written at once."""

_CLOSE_SECONDS = 1.0


class LogOutput(TextIOBase):
    """A text stream whose lines are written to a file descriptor, such as that of stderr, in the background.

    A line that cannot be written, because the pipe is closed or the disk is full, is dropped and counted. If
    nobody reads the pipe, lines wait; as soon as there are too many, further ones are dropped and counted.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Its `put` is reentrant: a finalizer may log at any time, even while this thread adds a line.
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._is_torn = False
        self._thread = threading.Thread(target=self._write_lines, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, text: str) -> int:
        if self._lines.qsize() < _MAX_LINES and self._thread.is_alive():
            self._lines.put(text.encode(errors="backslashreplace"))
        else:
            LOG_LINES_DROPPED.inc()
        return len(text)

    def close(self) -> None:
        """Write the lines that wait, for up to a second, and drop later ones."""
        self._lines.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def _write_lines(self) -> None:
        is_open = True
        while is_open:
            batch = [self._lines.get()]
            while len(batch) < _MAX_BATCH:
                try:
                    batch.append(self._lines.get_nowait())
                except Empty:
                    break
            is_open = None not in batch
            self._write_batch([line for line in batch if line is not None])

    def _write_batch(self, lines: list[bytes]) -> None:
        left = memoryview(b"".join([b"\n", *lines] if self._is_torn else lines))
        try:
            while left:
                written = os.write(self._descriptor, left)
                self._is_torn = left[written - 1] != ord("\n")
                left = left[written:]
        except OSError:
            LOG_LINES_DROPPED.inc(bytes(left).count(b"\n"))
