"""The report: tables in Markdown, so that docs/performance.md can show them as they are."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

_PACKAGES = ("fastapi", "uvicorn", "uvloop", "pydantic", "aiohttp", "httpx", "nats-py", "asyncpg")
_PRECISE_BELOW = 10

Cell = str | float | None
"""A text, a number, or nothing."""


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        title: the subject and the unit.
        columns: the headings; the first one is that of the row names.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def markdown(self) -> str:
        lines = [
            _line(self.columns),
            _line(["---", *("--:" for _ in self.columns[1:])]),
            *(_line([_text(cell) for cell in row]) for row in self.rows),
        ]
        return "\n".join([f"**{self.title}**", "", *lines])


def costs_table(title: str, columns: Sequence[str], costs: Mapping[str, Mapping[str, float]]) -> Table:
    """Create a table with a row per measurement, which has a figure for each process and their sum."""
    rows = [
        [name, *(by_process.get(column) for column in columns), sum(by_process.values())]
        for name, by_process in costs.items()
    ]
    return Table(title, ["", *columns, "total"], rows)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of the values by the nearest rank; `share` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def describe_environment(servers: Sequence[str]) -> str:
    """Describe the machine and the versions; `servers` are names with versions."""
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return (
        f"{os.cpu_count()} processors ({platform.machine()}), load {os.getloadavg()[0]:.1f} before the start,"
        f" Python {platform.python_version()} on {sys.platform}, {', '.join(servers)}, {packages}"
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case str():
            return cell
        case _:
            return f"{cell:,.1f}" if abs(cell) < _PRECISE_BELOW and cell % 1 else f"{cell:,.0f}"
