"""The clock of the sender, which shows the time of nats-server.

All processes therefore agree on it, and so does NATS, which delivers scheduled messages. If the clock of this
host is wrong or jumps, that has no effect: between two readings, time passes as the monotonic clock measures
it. If the clock of nats-server jumps, that counts only after most of the latest readings confirm it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from statistics import median_low
from time import monotonic
from typing import NamedTuple

from shared import supervision
from shared.bus.client import Bus
from shared.bus.streams import Streams
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError

_INTERVAL = 5.0
_READINGS = 5
_TIMEOUT = 1.0


class _Reading(NamedTuple):
    """A reading: how far nats-server is ahead of the monotonic clock, and by how much that may be wrong."""

    difference: float
    error: float


class ServerClock:
    """The time of nats-server; `clock` returns monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._readings: deque[_Reading] = deque(maxlen=_READINGS)
        self._difference: float | None = None
        self._known = asyncio.Event()

    def now(self) -> datetime:
        """Return the time, in UTC.

        Raises:
            BusUnavailableError: it is not known yet.
        """
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def timestamp(self) -> float:
        """Return the time in seconds since the epoch; raises the same error as `now`."""
        if self._difference is None:
            raise BusUnavailableError("the time of nats-server is not known yet")
        return self._clock() + self._difference

    async def until_known(self) -> None:
        await self._known.wait()

    def set(self, time: datetime, *, asked_at: float) -> None:
        """Take into account a reading that was requested at the monotonic time `asked_at`."""
        answered_at = self._clock()
        difference = time.timestamp() - (asked_at + answered_at) / 2
        self._readings.append(_Reading(difference, answered_at - asked_at))
        usual = median_low(each.difference for each in self._readings)
        credible = (each for each in self._readings if abs(each.difference - usual) <= _TIMEOUT)
        self._difference = min(credible, key=lambda reading: reading.error).difference
        self._known.set()

    async def run(self, bus: Bus, consumer: Consumer) -> None:
        """Read the time at intervals, until the task is cancelled.

        Args:
            bus: the connection.
            consumer: any consumer about which this process may ask.
        """
        streams = Streams(bus)
        while True:
            await supervision.patiently(bus.until_connected())
            asked_at = self._clock()
            with suppress(BusUnavailableError, TimeoutError):
                async with asyncio.timeout(_TIMEOUT):
                    self.set(await supervision.patiently(streams.time(consumer)), asked_at=asked_at)
            await supervision.patiently(asyncio.sleep(_INTERVAL if self._known.is_set() else _TIMEOUT))
