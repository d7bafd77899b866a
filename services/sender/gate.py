"""This process's side of a shared limit: it reserves slots for the messages that are waiting."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from time import time
from typing import Protocol

import structlog

from services.sender.schedule import Limit, UsedUpError
from shared.errors import BusUnavailableError, ServiceError
from shared.message import Priority

_log = structlog.get_logger()

LONGEST_WAIT = 3_600.0
"""The maximum number of seconds that a message waits in the process for its limits."""

_CHUNK_SECONDS = 0.1
"""Seconds. A process that dies wastes at most the slots of this time, or a single one."""

_CHUNK_WITHOUT_RATE = 10

_TOLERANCE = 0.08
"""Seconds after which an unused slot is dropped, or the share of an interval that is longer than a second.

If slots could be used at any later time, a process that had stalled would catch up with a burst.
"""


LEAD = 0.05
"""Seconds between the reservation of a slot and its time, so that no slot is missed."""


_PRECISION = 0.001
"""Seconds; timers are no more precise."""


class LimitedError(ServiceError):
    """A message would have to wait in the process for too long; `seconds` is the expected time."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the message has to wait for a limit")
        self.seconds = seconds


class Reserves(Protocol):
    async def reserve(self, limit: Limit, *, wanted: int, needed: int, not_before: float) -> list[float]: ...


class Gate:
    """The slots of a limit that this process has reserved.

    Args:
        limit: the limit.
        schedules: where slots are reserved.
        clock: returns seconds since the epoch.

    Attributes:
        on_change: functions to call after slots have been reserved, or the daily limit is used up.
    """

    def __init__(self, limit: Limit, schedules: Reserves, *, clock: Callable[[], float] = time) -> None:
        self.limit = limit
        self.on_change: list[Callable[[], None]] = []
        self._schedules = schedules
        self._clock = clock
        self._slots: deque[float] = deque()
        self._reserved_at = 0.0
        self._next = 0.0
        self._waiting: Counter[Priority] = Counter()
        self._deferred_until: dict[Priority, float] = {}
        self._reserving: asyncio.Task[None] | None = None

    def units(self, units: int) -> int:
        """Return how many slots a message of this many units takes: at most those of a day."""
        return min(units, self.limit.per_day or units)

    def enter(self, units: int, priority: Priority, longest_wait: float = LONGEST_WAIT) -> None:
        """Count a message as waiting.

        Raises:
            LimitedError: too many are waiting already.
        """
        ahead = sum(count for other, count in self._waiting.items() if _precedes(other, priority))
        if ahead * self.limit.interval > longest_wait:
            # Messages beyond the limit are due one after another, spaced by the time that each of them takes.
            now = self._clock()
            until = max(self._deferred_until.get(priority, 0), now + longest_wait)
            self._deferred_until[priority] = until + units * self.limit.interval
            raise LimitedError(self._deferred_until[priority] - now)
        self._waiting[priority] += units

    def leave(self, units: int, priority: Priority) -> None:
        self._waiting[priority] -= units

    def seconds_left(self) -> float:
        """Return the seconds until a slot can be taken, or has to be reserved, as far as is known."""
        left = (self._slots[0] if self._slots else self._next - LEAD) - self._clock()
        return left if left > _PRECISION else 0

    @property
    def first(self) -> float:
        """The time of the first reserved slot."""
        return self._slots[0]

    def has(self, units: int) -> bool:
        """Return whether this many slots are reserved and can still be used."""
        self._drop_late_slots()
        return len(self._slots) >= units

    def reserve(self, units: int, *, after: float) -> None:
        """Reserve slots in the background until there are `units`, for the time `after` or later."""
        if self._reserving is None:
            self._reserving = asyncio.create_task(self._reserve(units, after))

    def take(self, units: int) -> None:
        for _ in range(units):
            self._slots.popleft()

    async def _reserve(self, units: int, after: float) -> None:
        try:
            needed = units - len(self._slots)
            wanted = min(self._waiting.total(), self._chunk) - len(self._slots)
            slots = await self._schedules.reserve(
                self.limit, wanted=max(wanted, needed), needed=needed, not_before=after
            )
            self._slots.extend(slots)
            self._next = slots[-1] + self.limit.interval
            self._reserved_at = self._clock()
        except UsedUpError as exc:
            self._slots.clear()
            self._next = exc.until + LEAD
            _log.warning("limit_used_up", limit=self.limit.name, seconds=round(exc.until - self._clock()))
        except BusUnavailableError:
            return  # the reservation is tried again; nothing can be sent in the meantime
        finally:
            self._reserving = None
        for notify in self.on_change:
            notify()

    def _drop_late_slots(self) -> None:
        tolerance = _TOLERANCE * max(1, self.limit.interval)
        while self._slots and self._clock() > max(self._slots[0], self._reserved_at) + tolerance:
            self._slots.popleft()

    @property
    def _chunk(self) -> int:
        return int(self.limit.rate * _CHUNK_SECONDS) if self.limit.rate else _CHUNK_WITHOUT_RATE


def _precedes(priority: Priority, other: Priority) -> bool:
    return priority is other or priority is Priority.TRANSACTIONAL
