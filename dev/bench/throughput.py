"""Measures the rate at which senders deliver a backlog to a slow provider, beside the target rate."""

import asyncio
import json
import time
from dataclasses import dataclass

from dev.bench.cpu_time import Meter
from dev.bench.provider import Stats
from dev.bench.report import Cell, Table
from dev.bench.samples import accepted_events
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until
from services.sender.settings import SenderSettings

_CONCURRENCY: int = SenderSettings.model_fields["sms_provider_concurrency"].default
_AIM = 0.8
_HIGHEST_RATE = 1_500
"""Messages per second. Enough messages are published to keep every shard supplied at this rate."""

_WARM_UP = 3
"""The seconds of the warm-up, and the number of latencies added to them: readers of shards start slowly."""

_TIMEOUT = 120
_COLUMNS = ("provider takes", "senders", "messages/s", "0.8 · concurrency / latency", "CPUs used by senders")


@dataclass(frozen=True)
class _Throughput:
    rate: float
    cpus: float


async def measure(stack: Stack, size: Size) -> list[Table]:
    rows: dict[tuple[int, int], list[Cell]] = {}
    for senders in size.senders:
        names = ["sender", *(f"sender-{number}" for number in range(2, senders + 1))]
        for latency in size.latencies:
            aim = _AIM * senders * _CONCURRENCY / latency * 1_000
            throughput = await _send(stack, names, latency, aim, size.send_seconds)
            figures = (throughput.rate, aim, f"{throughput.cpus:.2f}")
            rows[latency, senders] = [f"{latency:,} ms", str(senders), *figures]
        await stack.stop(*names)
        await stack.empty()
    title = f"Throughput of senders with a concurrency of {_CONCURRENCY}"
    return [Table(title, _COLUMNS, [rows[key] for key in sorted(rows)])]


async def _send(stack: Stack, names: list[str], latency: int, aim: float, seconds: float) -> _Throughput:
    """Let the senders work through a backlog, and measure their rate once they have warmed up."""
    warm_up = _WARM_UP * (1 + latency / 1_000)
    await stack.set_latency(latency)
    rate = min(_HIGHEST_RATE, aim / _AIM)
    await stack.fill(accepted_events(int(rate * (1.5 * warm_up + seconds))))
    await stack.start(*names)

    async def has_started() -> bool:
        return (await provider_stats(stack)).accepted > 0

    await until(has_started, seconds=_TIMEOUT, every=0.05)
    await asyncio.sleep(warm_up)
    before, started, meter = (
        await provider_stats(stack),
        time.perf_counter(),
        Meter({"sender": stack.pids("sender")}),
    )
    await asyncio.sleep(seconds)
    after, elapsed, used = (
        await provider_stats(stack),
        time.perf_counter() - started,
        meter.seconds()["sender"],
    )
    # This is Little's law. The responses themselves come in waves, which a few seconds may miss.
    mean_latency = (after.waited - before.waited) / (after.accepted - before.accepted)
    rate = (after.busy - before.busy) / elapsed / mean_latency
    return _Throughput(rate, used / elapsed)


async def provider_stats(stack: Stack) -> Stats:
    answer = await stack.http.get(stack.url("provider", "/stats"))
    return Stats(**json.loads(answer.raise_for_status().content))
