"""The tables."""

from collections.abc import Iterable, Sequence

from dev.chaos.account import Line
from dev.chaos.runner import Result

_COLUMNS = ("", "asked", "accepted", "persisted", "sent once", "dead", "expired", "missing", "twice")
_SUMMARY = (*_COLUMNS, "asked again", "slowest", "took")


def account(result: Result, about: str) -> str:
    """Tell one scenario: its account by kind of message, what is worth noting, and what is wrong."""
    table = _table(_COLUMNS, [*map(_cells, result.lines)])
    letters = [f"dead letters: {count} {reason}" for reason, count in result.reasons.items()]
    notes = [
        f"slowest answer {result.slowest:.2f} s, asked again {result.asked_again}",
        *letters,
        *result.notes,
    ]
    wrong = [f"WRONG: {complaint}" for complaint in result.complaints]
    verdict = f"{result.scenario}: {'FAILED' if wrong else 'balanced'} in {result.seconds:.0f} s"
    return "\n".join([f"\n{result.scenario}: {about}", table, *notes, *wrong, verdict])


def summary(results: Sequence[Result]) -> str:
    return _table(_SUMMARY, [_summed(result) for result in results])


def _summed(result: Result) -> tuple[str, ...]:
    numbers = [_numbers(line) for line in result.lines] or [(0,) * (len(_COLUMNS) - 1)]
    columns = zip(*numbers, strict=True)
    name = result.scenario + (" FAILED" if result.complaints else "")
    totals = (str(sum(column)) for column in columns)
    return (name, *totals, str(result.asked_again), f"{result.slowest:.2f} s", f"{result.seconds:.0f} s")


def _cells(line: Line) -> tuple[str, ...]:
    return line.name, *map(str, _numbers(line))


def _numbers(line: Line) -> tuple[int, ...]:
    return (
        line.asked,
        line.accepted,
        line.persisted,
        line.sent_once,
        line.dead,
        line.expired,
        len(line.missing),
        len(line.twice),
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
