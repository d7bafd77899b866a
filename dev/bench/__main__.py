"""Measure the services, which run as processes with real servers.

    python -m dev.bench [--quick] [name…]
    python -m dev.bench --scale [messages]

All figures are measured in the same run as the limits with which they should be compared. Other load on the
machine raises CPU times by half or more, and affects rates and latencies even more. No figure fails the run:
the exit status is 1 only if something did not work. docs/performance.md explains the figures.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from secrets import token_hex

import httpx

from dev.bench import costs, kannel, latency, memory, page, retention, scale, throughput
from dev.bench.errors import BenchError
from dev.bench.report import Table, describe_environment
from dev.bench.size import FULL, QUICK
from dev.bench.stack import Stack, running_stack, server_versions
from dev.local_stack.errors import NotStartedError, StackError
from shared.errors import ServiceError
from shared.observability.logging import configure
from shared.settings import Settings

Measure = Callable[[Stack], Awaitable[list[Table]]]

_MEASURES: dict[str, Callable[..., Awaitable[list[Table]]]] = {
    "costs": costs.measure,
    "kannel": kannel.measure,
    "throughput": throughput.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "page": page.measure,
    "retention": retention.measure,
}
_SCALE = 10_000_000
_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.bench", description="Measure the services.")
    parser.add_argument("--quick", action="store_true", help="measure less of each, in less time")
    parser.add_argument(
        "--scale",
        type=int,
        nargs="?",
        const=_SCALE,
        metavar="messages",
        help=f"measure only reads, lists and writes, with this number of messages; {_SCALE:,} by default",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(_MEASURES)}; default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - _MEASURES.keys():
        parser.error(f"unknown name: {', '.join(sorted(unknown))}")
    names = [name for name in _MEASURES if name in arguments.names or not arguments.names]
    measures: dict[str, Measure] = {
        name: partial(_MEASURES[name], size=QUICK if arguments.quick else FULL) for name in names
    }
    if arguments.scale:
        measures = {"scale": partial(scale.measure, messages=arguments.scale)}
    configure(Settings(log_level="ERROR"), service="dev.bench")
    try:
        asyncio.run(_run(measures))
    except (BenchError, StackError, ServiceError, httpx.HTTPError, TimeoutError, OSError) as exc:
        details = exc.last_lines if isinstance(exc, NotStartedError) else ()
        reason = exc if isinstance(exc, BenchError) else repr(exc)
        print(f"bench: {reason}", *details, sep="\n", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    return 0


async def _run(measures: Mapping[str, Measure]) -> None:
    """Measure, and print each table as soon as it is complete."""
    _stop_on_sigterm()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        async with running_stack(Path(folder), WEBHOOK_ENDPOINT_KEY=token_hex()) as stack:
            print(describe_environment(await server_versions(stack)), flush=True)
            for name, measure in measures.items():
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                for table in await measure(stack):
                    print(f"\n{table.markdown()}", flush=True)
    print(f"\nmeasured in {time.monotonic() - started:.0f} s")


def _stop_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, so that everything is stopped in order."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


if __name__ == "__main__":
    sys.exit(main())
