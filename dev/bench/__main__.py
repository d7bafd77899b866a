"""Measure the services, which run as processes with real servers, and compare each figure with its limit.

    python -m dev.bench [--quick] [name…]

A figure and its limit are measured in turn, so that other load on the machine affects both. What matters is
their ratio. No result fails the run: the exit status is 1 only if something did not work.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx

from dev.bench import gateway, ingest, latency, memory, sender
from dev.bench.errors import BenchError
from dev.bench.report import Row, describe_environment, table
from dev.bench.size import FULL, QUICK, Size
from dev.bench.stack import running_stack, server_versions
from dev.local_stack.errors import NotStartedError, StackError
from shared.errors import ServiceError
from shared.observability.logging import configure
from shared.settings import Settings

_MEASURES: dict[str, Callable[..., Awaitable[list[Row]]]] = {
    "gateway": gateway.measure,
    "ingest": ingest.measure,
    "sender": sender.measure,
    "latency": latency.measure,
    "memory": memory.measure,
}
_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev.bench", description="Measure the services, and compare each figure with its limit."
    )
    parser.add_argument("--quick", action="store_true", help="measure one short round of each")
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(_MEASURES)}; default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - _MEASURES.keys():
        parser.error(f"unknown name: {', '.join(sorted(unknown))}")
    names = [name for name in _MEASURES if name in arguments.names or not arguments.names]
    configure(Settings(log_level="ERROR"), service="dev.bench")
    try:
        print(asyncio.run(_run(names, QUICK if arguments.quick else FULL)))
    except (BenchError, StackError, ServiceError, httpx.HTTPError, TimeoutError, OSError) as exc:
        details = exc.last_lines if isinstance(exc, NotStartedError) else ()
        print(f"bench: {exc!r}", *details, sep="\n", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    return 0


async def _run(names: Sequence[str], size: Size) -> str:
    """Measure, and return the report."""
    _stop_on_sigterm()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        async with running_stack(Path(folder)) as stack:
            environment = describe_environment(await server_versions(stack))
            rows = []
            for name in names:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                rows += await _MEASURES[name](stack, size)
    return f"\n{environment}\n\n{table(rows)}\n\nmeasured in {time.monotonic() - started:.0f} s"


def _stop_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, so that everything is stopped in order."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


if __name__ == "__main__":
    sys.exit(main())
