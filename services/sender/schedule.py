"""Limits that apply across all sender processes.

Each limit has a schedule of evenly spaced slots, which the processes reserve a few at a time. The schedule is
a value in a key-value bucket that contains the time of the next free slot. Unused slots do not accumulate, so
there is no burst: a limit of 10 per second is one slot every 0.1 seconds.

The times are those of nats-server, which all processes read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import time

import structlog
from pydantic import FiniteFloat

from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore, RevisionConflictError, UnreadableValueError, Versioned
from shared.bus.publisher import Publisher
from shared.bus.topology import LIMITS_BUCKET, limit_key
from shared.errors import ServiceError
from shared.message import FrozenModel

_log = structlog.get_logger()

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit across all sender processes.

    Attributes:
        name: identifies the limit.
        rate: units per second; None for no limit.
        per_day: units per day (UTC); None for no limit.
    """

    name: str
    rate: float | None = None
    per_day: int | None = None

    @property
    def interval(self) -> float:
        """Seconds between one slot and the next."""
        return 1 / self.rate if self.rate else 0


class UsedUpError(ServiceError):
    """The daily limit is used up; `until` is the time at which the next day begins."""

    def __init__(self, until: float) -> None:
        super().__init__("the daily limit is used up")
        self.until = until


class Schedule(FrozenModel):
    """The state of a limit.

    Attributes:
        next: the time of the next free slot, in seconds since the epoch.
        day: the day of the last slot, as a number.
        used: how many slots of that day are reserved. It does not change for a limit without `per_day`.
    """

    next: FiniteFloat = 0
    day: int = 0
    used: int = 0

    def reserve(
        self, limit: Limit, *, wanted: int, needed: int, now: float
    ) -> tuple["Schedule", list[float]]:
        """Reserve slots.

        Returns:
            The new state, and the times of up to `wanted` slots.

        Raises:
            UsedUpError: fewer than `needed` slots are left for the day.
        """
        start = max(self.next, now)
        # The clock of the process that began this day may be ahead.
        day = max(int(start // _DAY), self.day)
        used = self.used if day == self.day else 0
        if limit.per_day is not None:
            left = limit.per_day - used
            if left < needed:
                raise UsedUpError((day + 1) * _DAY)
            wanted = min(wanted, left)
            used += wanted
        times = [start + number * limit.interval for number in range(wanted)]
        return Schedule(next=start + wanted * limit.interval, day=day, used=used), times


class Schedules:
    """The schedules of all limits, changed by compare-and-set; `clock` returns seconds since the epoch."""

    def __init__(self, bus: Bus, publisher: Publisher, *, clock: Callable[[], float] = time) -> None:
        self._store = KeyValueStore.bucket(bus, publisher, LIMITS_BUCKET, Schedule)
        self.clock = clock
        self._known: dict[str, Versioned[Schedule]] = {}

    async def reserve(self, limit: Limit, *, wanted: int, needed: int, not_before: float = 0) -> list[float]:
        """Reserve up to `wanted` slots, but at least `needed`, and return their times.

        Raises:
            UsedUpError: fewer than `needed` slots are left for the day.
            BusUnavailableError: NATS does not answer. Some slots may be lost.
        """
        key = limit_key(limit.name)
        while True:
            # If no other process uses the limit, there is no need to read back the value that was written.
            found = self._known.pop(key, None) or await self._read(key)
            state = found.value if isinstance(found, Versioned) else Schedule()
            now = max(self.clock(), not_before)
            changed, times = state.reserve(limit, wanted=wanted, needed=needed, now=now)
            try:
                self._known[key] = await self._store.put(key, changed, after=found)
            except RevisionConflictError:
                continue
            return times

    async def _read(self, key: str) -> Versioned[Schedule] | UnreadableValueError | None:
        """Return the state of a limit; if it cannot be read, its schedule starts again."""
        try:
            return await self._store.get(key)
        except UnreadableValueError as exc:
            _log.error("limit_unreadable", key=key, error=str(exc))
            return exc
