"""The CPU time that processes use."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, in user and system mode, including its children.

    Linux counts in hundredths of a second.
    """
    process = psutil.Process(pid)
    seconds = 0.0
    # The time of children that have ended counts for their parent: PostgreSQL starts and ends children often.
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            seconds += sum(member.cpu_times()[:4])
    return seconds


class Meter:
    """Measures the CPU time of groups of processes from its creation on.

    Args:
        pids: the processes of each group, by its name.
    """

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        self._pids = pids
        self._started = self._read()

    def seconds(self) -> dict[str, float]:
        return {name: seconds - self._started[name] for name, seconds in self._read().items()}

    def per_message(self, count: int) -> dict[str, float]:
        """Return the microseconds of each group per message, for `count` messages."""
        return {name: seconds * 1_000_000 / count for name, seconds in self.seconds().items()}

    def _read(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._pids.items()}
