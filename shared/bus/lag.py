"""Keeps the metrics that tell how far behind the consumers are."""

import asyncio
import math
from collections.abc import Sequence

from shared.bus.streams import Lag, Streams
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError
from shared.observability.metrics import CONSUMER_ACK_PENDING, CONSUMER_PENDING

_INTERVAL = 5
"""Seconds."""


async def watch_lag(streams: Streams, consumers: Sequence[Consumer]) -> None:
    """Look from time to time; ends by cancellation only."""
    while True:
        for consumer in consumers:
            _show(consumer, await _measure(streams, consumer))
        await asyncio.sleep(_INTERVAL)


async def _measure(streams: Streams, consumer: Consumer) -> Lag | None:
    try:
        return await streams.lag(consumer)
    except BusUnavailableError:
        return None


def _show(consumer: Consumer, lag: Lag | None) -> None:
    """Show what is not known as NaN: what was measured last would pass for the truth."""
    labels = (consumer.stream, consumer.name)
    CONSUMER_PENDING.labels(*labels).set(math.nan if lag is None else lag.pending)
    CONSUMER_ACK_PENDING.labels(*labels).set(math.nan if lag is None else lag.ack_pending)
