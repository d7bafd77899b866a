"""Breaks things while messages run through them, and accounts for every one of them.

    python -m chaos [--short] [--runs N] [--seed N] [scenario…]

The exit status is 1 when anything that was accepted is missing, or was accepted twice by a provider, when an
answer took longer than 5 seconds, or a stream stands still.
"""

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Sequence

from dev.chaos import report
from dev.chaos.runner import BROKEN, Result, Runner
from dev.chaos.scenarios import SCENARIOS
from dev.chaos.scene import Scenario

_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.chaos", description="Break things, and account for every message.")
    parser.add_argument("--short", action="store_true", help="some minutes: shorter, and fewer scenarios")
    parser.add_argument("--runs", type=int, default=1, help="how often to play all of it")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10_000), help="of what is left to chance"
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="scenario",
        help=f"of {', '.join(s.name for s in SCENARIOS)}; all by default",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {scenario.name for scenario in SCENARIOS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    chosen = [
        scenario
        for scenario in SCENARIOS
        if (scenario.name in arguments.names if arguments.names else scenario.in_short or not arguments.short)
    ]
    runner = Runner(is_short=arguments.short, seed=arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    try:
        results = asyncio.run(_play(runner, chosen, arguments.runs))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    print(f"\n{report.summary(results)}")
    return int(any(result.complaints for result in results))


async def _play(runner: Runner, scenarios: Sequence[Scenario], runs: int) -> list[Result]:
    _stop_on_sigterm()
    results = []
    try:
        for run in range(runs):
            for scenario in scenarios:
                try:
                    result = await runner.play(scenario, run)
                except BROKEN as exc:
                    result = Result.of_broken(scenario, exc)
                    await runner.aclose()
                print(report.account(result, scenario.about), flush=True)
                results.append(result)
    finally:
        await runner.aclose()
    return results


def _stop_on_sigterm() -> None:
    """Let SIGTERM stop everything in order, as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


if __name__ == "__main__":
    sys.exit(main())
