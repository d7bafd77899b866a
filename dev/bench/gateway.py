"""Measures how many requests the gateway accepts, compared with an endpoint that does nothing."""

import json

from dev.bench.errors import BenchError
from dev.bench.load import Load
from dev.bench.report import Row, of_rounds
from dev.bench.size import Size
from dev.bench.stack import Stack

_CONNECTIONS = 64
_WARM_UP = 500


async def measure(stack: Stack, size: Size) -> list[Row]:
    await stack.start("bare", "gateway")
    for name in ("bare", "gateway"):
        await _load(stack, name, _WARM_UP)
    limits, figures = [], []
    for _ in range(size.rounds):
        limits.append(await _load(stack, "bare", 2 * size.requests))
        figures.append(await _load(stack, "gateway", size.requests))
    await stack.empty()
    rounds = [(figure.rate, limit.rate) for figure, limit in zip(figures, limits, strict=True)]
    return [
        of_rounds("requests accepted per second", rounds, "more than half of a bare endpoint's"),
        of_rounds(
            "  CPU of the load generator, %",
            [(100 * figure.busy, 100 * limit.busy) for figure, limit in zip(figures, limits, strict=True)],
            "far from 100",
        ),
    ]


async def _load(stack: Stack, name: str, count: int) -> Load:
    path = {"bare": "/messages", "gateway": "/api/messages/sms"}[name]
    printed = await stack.run("dev.bench.load", str(stack.ports[name]), path, str(count), str(_CONNECTIONS))
    load = Load(**json.loads(printed))
    if load.refused:
        raise BenchError(f"{name} refused {load.refused} of {load.requests} requests")
    return load
