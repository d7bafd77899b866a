"""Keeps the metrics that tell how far behind the consumers are."""

import asyncio
from collections.abc import Sequence

from shared.bus.streams import Streams
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError
from shared.metrics import CONSUMER_ACK_PENDING, CONSUMER_PENDING

_INTERVAL = 5
"""Seconds."""


async def watch_lag(streams: Streams, consumers: Sequence[Consumer]) -> None:
    """Look from time to time; ends by cancellation only."""
    while True:
        for consumer in consumers:
            await _measure(streams, consumer)
        await asyncio.sleep(_INTERVAL)


async def _measure(streams: Streams, consumer: Consumer) -> None:
    try:
        lag = await streams.lag(consumer)
    except BusUnavailableError:
        return  # what was measured last stands
    if lag is not None:
        CONSUMER_PENDING.labels(consumer.stream, consumer.name).set(lag.pending)
        CONSUMER_ACK_PENDING.labels(consumer.stream, consumer.name).set(lag.ack_pending)
