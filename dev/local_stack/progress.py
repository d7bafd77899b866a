"""Shows the progress of the start."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from dev.local_stack.terminal import Terminal

_REDRAW_EVERY = 0.2
_REPEAT_EVERY = 5.0
"""Seconds between updates if the output cannot be redrawn."""


class Progress:
    """A line for each part that is ready, and one for those that are not ready yet."""

    def __init__(self, terminal: Terminal, *, names: Iterable[str]) -> None:
        self._terminal = terminal
        self._width = max(map(len, names), default=0)
        self._under_way: dict[str, float] = {}

    @contextmanager
    def waiting_for(self, name: str, outcome: str) -> Iterator[None]:
        """Show that the start is waiting for a part, and then its outcome with the time that it took."""
        loop = asyncio.get_running_loop()
        began = self._under_way[name] = loop.time()
        self._redraw()
        try:
            yield
            seconds = loop.time() - began
            self._terminal.show(f"  {name:<{self._width}}  {outcome:<7} {seconds:5.1f} s")
        finally:
            del self._under_way[name]
            self._redraw()

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Keep showing the parts that are not ready yet, for the block."""
        repeating = asyncio.create_task(self._repeat())
        try:
            yield
        finally:
            repeating.cancel()

    async def _repeat(self) -> None:
        while True:
            if self._terminal.can_redraw:
                await asyncio.sleep(_REDRAW_EVERY)
                self._redraw()
            else:
                await asyncio.sleep(_REPEAT_EVERY)
                self._terminal.show(self._text())

    def _redraw(self) -> None:
        if self._terminal.can_redraw:
            self._terminal.set_status(self._text())

    def _text(self) -> str:
        if not self._under_way:
            return ""
        seconds = asyncio.get_running_loop().time() - min(self._under_way.values())
        return f"  waiting for {', '.join(self._under_way)} ({seconds:.0f} s)"
