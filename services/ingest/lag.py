"""Keeps the metrics that tell how far behind ingest is."""

import asyncio
from contextlib import suppress

from services.ingest.streams import Streams
from shared.bus.topology import ADVISORY_CONSUMER, INGEST_CONSUMERS, Consumer
from shared.errors import BusUnavailableError
from shared.metrics import CONSUMER_ACK_PENDING, CONSUMER_PENDING

_INTERVAL = 5
"""Seconds."""


async def watch_lag(streams: Streams, stopping: asyncio.Event) -> None:
    """Look from time to time, until `stopping` is set."""
    while not stopping.is_set():
        for consumer in (*INGEST_CONSUMERS, ADVISORY_CONSUMER):
            await _measure(streams, consumer)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _INTERVAL)


async def _measure(streams: Streams, consumer: Consumer) -> None:
    try:
        lag = await streams.lag(consumer)
    except BusUnavailableError:
        return  # what was measured last stands
    if lag is not None:
        CONSUMER_PENDING.labels(consumer.stream, consumer.name).set(lag.pending)
        CONSUMER_ACK_PENDING.labels(consumer.stream, consumer.name).set(lag.ack_pending)
