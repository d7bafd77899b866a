"""The tables of the results."""

from collections.abc import Iterable, Sequence

from dev.chaos.account import Line
from dev.chaos.runner import Result

_COLUMNS = (
    "",
    "requested",
    "accepted",
    "stored",
    "sent once",
    "dead-lettered",
    "expired",
    "missing",
    "duplicates",
)
_SUMMARY = (*_COLUMNS, "repeated", "slowest", "took")


def account(result: Result, about: str) -> str:
    """Return the account of one scenario by kind of message, with its notes and violations."""
    table = _table(_COLUMNS, [*map(_cells, result.lines)])
    failures = [f"dead letters: {count} {reason}" for reason, count in result.failures.items()]
    notes = [
        f"slowest response {result.slowest:.2f} s, {result.repeated} requests repeated to providers",
        *failures,
        *result.notes,
    ]
    violations = [f"WRONG: {violation}" for violation in result.violations]
    verdict = f"{result.scenario}: {'FAILED' if violations else 'balanced'} in {result.seconds:.0f} s"
    return "\n".join([f"\n{result.scenario}: {about}", table, *notes, *violations, verdict])


def summary(results: Sequence[Result]) -> str:
    return _table(_SUMMARY, [_summed(result) for result in results])


def _summed(result: Result) -> tuple[str, ...]:
    numbers = [_numbers(line) for line in result.lines] or [(0,) * (len(_COLUMNS) - 1)]
    columns = zip(*numbers, strict=True)
    name = result.scenario + (" FAILED" if result.violations else "")
    totals = (str(sum(column)) for column in columns)
    return (name, *totals, str(result.repeated), f"{result.slowest:.2f} s", f"{result.seconds:.0f} s")


def _cells(line: Line) -> tuple[str, ...]:
    return line.name, *map(str, _numbers(line))


def _numbers(line: Line) -> tuple[int, ...]:
    return (
        line.requested,
        line.accepted,
        line.stored,
        line.sent_once,
        line.dead_lettered,
        line.expired,
        len(line.missing),
        len(line.duplicates),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    all_rows = [head, *rows]
    widths = [max(len(row[column]) for row in all_rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in all_rows
    )
