"""Measures the services as processes between real servers, each figure beside its limit.

    python -m bench [--quick] [name…]

The machine's other work disturbs a figure and its limit alike, since they are measured in turn: what counts
is their ratio. Nothing is asserted; the exit status tells only whether everything worked.
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
from dev.bench.report import Row, surroundings, table
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
    parser = argparse.ArgumentParser(prog="dev.bench", description="Measure, each figure beside its limit.")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(_MEASURES)}; all by default")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - _MEASURES.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
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
    """Measure, and return what there is to show."""
    _stop_on_sigterm()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        async with running_stack(Path(folder)) as stack:
            about = surroundings(await server_versions(stack))
            rows = []
            for name in names:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                rows += await _MEASURES[name](stack, size)
    return f"\n{about}\n\n{table(rows)}\n\nmeasured in {time.monotonic() - started:.0f} s"


def _stop_on_sigterm() -> None:
    """Let SIGTERM stop everything in order, as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


if __name__ == "__main__":
    sys.exit(main())
