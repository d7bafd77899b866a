"""This process's side of a shared limit: it reserves slots for the messages that are waiting."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, repeat
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


_LATEST = 0.1
"""Seconds after which a slot that was taken has to be replaced if the request has not been made yet.

If the claims of messages are held up, their requests would otherwise be made together with those that follow.
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
        self._late: list[tuple[int, asyncio.Future[None]]] = []
        self._replacing: asyncio.Task[None] | None = None

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

    def take(self, units: int) -> float:
        """Take slots, and return the time of the first one, or at which it was reserved if that is later."""
        taken = [self._slots.popleft() for _ in range(units)]
        return max(taken[0], self._reserved_at)

    def is_late(self, taken: float) -> bool:
        """Return whether the time for a request has passed, if its slot was taken for the time `taken`."""
        return 0 < self.limit.interval <= 1 and self._clock() > taken + _LATEST

    async def replace(self, units: int) -> None:
        """Wait for slots in place of some that were taken and are late, or until NATS is unavailable."""
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._late.append((units, due))
        if self._replacing is None:
            self._replacing = asyncio.create_task(self._replace_late())
        await due

    async def _replace_late(self) -> None:
        """Reserve slots for the messages that are late, for all that come in the meantime at once."""
        loop = asyncio.get_running_loop()
        while self._late:
            late, self._late = self._late, []
            count = sum(units for units, _ in late)
            limit = replace(self.limit, per_day=None)  # they have been counted
            try:
                slots: Iterator[float] = iter(
                    await self._schedules.reserve(limit, wanted=count, needed=count, not_before=0)
                )
            except BusUnavailableError:
                slots = repeat(0.0)
            for units, due in late:
                first, *_ = islice(slots, units)
                loop.call_later(max(0, first - self._clock()), _finish, due)
        self._replacing = None

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


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _precedes(priority: Priority, other: Priority) -> bool:
    return priority is other or priority is Priority.TRANSACTIONAL
