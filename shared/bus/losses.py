"""Counts the messages that a stream has dropped, because of their age, before they were delivered."""

import asyncio
from contextlib import suppress

import structlog

from shared.bus.streams import Streams
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError
from shared.observability.metrics import LOST

_log = structlog.get_logger()

_INTERVAL = 60
"""Seconds."""


class LossCounter:
    """Counts the lost messages of a consumer of a whole stream.

    The sequences of a stream have no gaps unless messages were dropped, so the one after the newest message
    that was delivered must exist as soon as there is a later one. This does not hold for a consumer with
    filters.
    """

    def __init__(self, streams: Streams, consumer: Consumer) -> None:
        self._streams = streams
        self._consumer = consumer
        self._counter = LOST.labels(consumer.stream, consumer.name)
        self._seen: int | None = None
        self._check_at = 0.0

    async def check(self) -> None:
        """Count the messages that were lost since the last check, at most once a minute."""
        now = asyncio.get_running_loop().time()
        if now < self._check_at:
            return
        self._check_at = now + _INTERVAL
        with suppress(BusUnavailableError):
            await self._check()

    async def _check(self) -> None:
        lag = await self._streams.lag(self._consumer)
        if lag is None:
            return
        seen = self._seen if self._seen is not None else lag.delivered
        if seen is None:
            return  # it was created or reset, so it is unknown what it had received before
        following = await self._streams.oldest(self._consumer.stream, [">"], seen)
        self._seen = max(seen, lag.delivered or 0)
        if following is None or following.sequence <= seen + 1:
            return
        lost = following.sequence - seen - 1
        self._seen = max(self._seen, following.sequence - 1)
        self._counter.inc(lost)
        _log.error("messages_lost", stream=self._consumer.stream, consumer=self._consumer.name, count=lost)
