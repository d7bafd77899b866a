"""The metrics of the consumers' backlogs."""

import asyncio
import math
from collections.abc import Callable, Sequence

from shared import supervision
from shared.bus.streams import Lag, Streams
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError
from shared.observability.metrics import CONSUMER_ACK_PENDING, CONSUMER_PENDING

_INTERVAL = 5
"""Seconds."""


async def watch_lag(streams: Streams, consumers: Callable[[], Sequence[Consumer]]) -> None:
    """Keep the metrics up to date until the task is cancelled.

    Args:
        streams: measures the lag.
        consumers: returns the consumers to measure; the metrics of all others are removed.
    """
    exported: set[Consumer] = set()
    while True:
        current = consumers()
        for consumer in exported.difference(current):
            _remove(consumer)
        exported = set(current)
        for consumer in current:
            supervision.beat()
            _export(consumer, await _measure(streams, consumer))
        await supervision.patiently(asyncio.sleep(_INTERVAL))


async def _measure(streams: Streams, consumer: Consumer) -> Lag | None:
    try:
        return await streams.lag(consumer)
    except BusUnavailableError:
        return None


def _export(consumer: Consumer, lag: Lag | None) -> None:
    """Export the lag, or NaN if it is unknown: the last known value would look like a current one."""
    labels = (consumer.stream, consumer.name)
    CONSUMER_PENDING.labels(*labels).set(math.nan if lag is None else lag.pending)
    CONSUMER_ACK_PENDING.labels(*labels).set(math.nan if lag is None else lag.ack_pending)


def _remove(consumer: Consumer) -> None:
    for metric in (CONSUMER_PENDING, CONSUMER_ACK_PENDING):
        metric.remove(consumer.stream, consumer.name)
