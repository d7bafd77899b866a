"""The report: a table of the figures and their limits, which were measured in the same run."""

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median

_PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "pydantic", "httpx", "nats-py", "asyncpg")
_HEAD = ("", "figure", "limit", "ratio", "aim")
_PRECISE_BELOW = 100


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        limit: the value that the figure is compared with, measured in turn with it, if there is one.
        aim: the target, in words.
    """

    name: str
    figure: float
    limit: float | None = None
    aim: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        if self.limit is None:
            return self.name, _number(self.figure), "", "", self.aim
        return (
            self.name,
            _number(self.figure),
            _number(self.limit),
            f"{self.figure / self.limit:.2f}",
            self.aim,
        )


def of_rounds(name: str, rounds: Iterable[tuple[float, float]], aim: str) -> Row:
    """Create the row of several rounds, each a figure and its limit, from their medians."""
    figures, limits = zip(*rounds, strict=True)
    return Row(name, median(figures), median(limits), aim)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of the values by the nearest rank; `share` is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def table(rows: Iterable[Row]) -> str:
    lines = [_HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(_line(line, widths) for line in lines)


def describe_environment(servers: Sequence[str]) -> str:
    """Describe the machine and the versions; `servers` are names with versions."""
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    busy = f"load {os.getloadavg()[0]:.1f} before the start"
    return (
        f"{os.cpu_count()} processors ({platform.machine()}, {busy}), Python {platform.python_version()}"
        f" on {sys.platform}, {', '.join(servers)}\n{packages}"
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers, aim = cells
    aligned = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=False)]
    return "  ".join([name.ljust(widths[0]), *aligned, aim]).rstrip()


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < _PRECISE_BELOW else f"{value:,.0f}"
