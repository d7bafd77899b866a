import asyncio
import os

import pytest

from dev.local_stack import progress
from dev.local_stack.progress import Progress
from dev.local_stack.terminal import Terminal


def lines(terminal: Terminal, reader: int, writer: int) -> list[str]:
    terminal.close()
    os.close(writer)
    return os.read(reader, 65_536).decode().splitlines()


async def test_each_part_is_shown_with_its_outcome() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    shown = Progress(terminal, names=["nats", "gateway"])
    with shown.waiting_for("nats", "ready"):
        pass
    with shown.waiting_for("gateway", "done"):
        pass
    assert lines(terminal, reader, writer) == ["  nats     ready     0.0 s", "  gateway  done      0.0 s"]


async def test_a_failed_part_has_no_outcome() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    shown = Progress(terminal, names=["nats"])
    with pytest.raises(RuntimeError), shown.waiting_for("nats", "ready"):
        raise RuntimeError
    assert lines(terminal, reader, writer) == []


async def test_parts_that_take_long_are_named_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_REPEAT_EVERY", 0.001)
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    shown = Progress(terminal, names=["nats", "gateway"])
    async with shown.shown():
        with shown.waiting_for("nats", "ready"), shown.waiting_for("gateway", "ready"):
            await asyncio.sleep(0.05)
    assert "  waiting for nats, gateway (0 s)" in lines(terminal, reader, writer)
