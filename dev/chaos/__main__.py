"""Inject faults while messages are sent and received, and account for every message.

    python -m dev.chaos [--short] [--runs N] [--seed N] [scenario…]
    python -m dev.chaos --random N [--runs N] [--seed N]

The exit status is 1 if an accepted message is missing, if a provider accepted a message twice, if a
conversation was sent out of order while nothing failed, if a response took longer than 5 seconds, or if a
stream is no longer read.
"""

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Sequence

from dev.chaos import report
from dev.chaos.composed import compose
from dev.chaos.errors import NotPossibleError
from dev.chaos.runner import ABORTING, Result, Runner
from dev.chaos.scenarios import SCENARIOS
from dev.chaos.scene import Scenario

_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev.chaos", description="Inject faults, and account for every message."
    )
    parser.add_argument(
        "--short", action="store_true", help="run fewer and shorter scenarios, in a few minutes"
    )
    parser.add_argument("--runs", type=int, default=1, help="how often to run the scenarios")
    parser.add_argument(
        "--random", type=int, metavar="N", help="inject N random faults instead of playing the scenarios"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10_000), help="the seed of the random choices"
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="scenario",
        help=f"{', '.join(scenario.name for scenario in SCENARIOS)}; default: all",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {scenario.name for scenario in SCENARIOS}:
        parser.error(f"unknown scenario: {', '.join(sorted(unknown))}")
    chosen = [
        scenario
        for scenario in SCENARIOS
        if (scenario.name in arguments.names if arguments.names else scenario.in_short or not arguments.short)
    ]
    runs = [chosen] * arguments.runs
    if arguments.random:
        runs = [[compose(arguments.random, f"{arguments.seed}-{run}")] for run in range(arguments.runs)]
    runner = Runner(is_short=arguments.short, seed=arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    try:
        results = asyncio.run(_play(runner, runs))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    print(f"\n{report.summary(results)}")
    return int(any(result.violations for result in results))


async def _play(runner: Runner, runs: Sequence[Sequence[Scenario]]) -> list[Result]:
    _stop_on_sigterm()
    results = []
    try:
        for run, scenarios in enumerate(runs):
            for scenario in scenarios:
                try:
                    result = await runner.play(scenario, run)
                except NotPossibleError as exc:
                    print(f"\n{scenario.name}: skipped: {exc}", flush=True)
                    continue
                except ABORTING as exc:
                    result = await runner.abort(scenario, run, exc)
                print(report.account(result, scenario.about), flush=True)
                results.append(result)
    finally:
        await runner.aclose()
    return results


def _stop_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, so that everything is stopped in order."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


if __name__ == "__main__":
    sys.exit(main())
