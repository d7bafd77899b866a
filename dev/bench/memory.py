"""Measures how much memory each service uses after a burst of messages has gone through all of them."""

import asyncio
import sys
from pathlib import Path

from dev.bench.report import Row
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until
from shared.bus.topology import Stream

_SERVICES = ("gateway", "ingest", "sender")
_CONNECTIONS = 16
_TIMEOUT = 30


async def measure(stack: Stack, size: Size) -> list[Row]:
    if sys.platform != "linux":
        return []
    await stack.start("bare", "mocks", *_SERVICES)
    for name, path in (("bare", "/messages"), ("gateway", "/api/messages/sms")):
        await stack.run("dev.bench.load", str(stack.ports[name]), path, str(size.burst), str(_CONNECTIONS))
    await until(lambda: _is_idle(stack), seconds=_TIMEOUT, every=0.2)
    return [
        Row(
            f"memory of {service}, MiB {kind}",
            _memory(stack, service, kind),
            _memory(stack, "bare", kind),
            aim,
        )
        for service in _SERVICES
        for kind, aim in (("RSS", "limit: a bare endpoint"), ("PSS", ""))
    ]


async def _is_idle(stack: Stack) -> bool:
    """Return whether no more events are being published, and all of them are stored."""
    before = (await stack.bus.jetstream.stream_info(Stream.EVENTS)).state.messages
    await asyncio.sleep(0.5)
    after = (await stack.bus.jetstream.stream_info(Stream.EVENTS)).state.messages
    return after == before and await stack.left(Stream.EVENTS, "ingest-events") == 0


def _memory(stack: Stack, service: str, kind: str) -> float:
    """Return the memory of the process in MiB, summed over its mappings by the kernel (`man 5 proc`)."""
    rollup = Path(f"/proc/{stack.pid(service)}/smaps_rollup").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
    return int(fields[kind.capitalize()].split()[0]) / 1_024
