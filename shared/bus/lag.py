"""The metrics of the consumers' backlogs."""

import asyncio
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count

import structlog

from shared import supervision
from shared.bus.streams import Lag, Streams
from shared.bus.topology import Consumer
from shared.errors import BusUnavailableError
from shared.observability.metrics import (
    CONSUMER_ACK_PENDING,
    CONSUMER_MISSING,
    CONSUMER_OLDEST,
    CONSUMER_PENDING,
)

_log = structlog.get_logger()

_INTERVAL = 5
"""Seconds."""

_AGE_EVERY = 12
"""Measurements per measurement of the age, which needs a request for each subject of the consumer."""

_METRICS = (CONSUMER_PENDING, CONSUMER_ACK_PENDING, CONSUMER_OLDEST, CONSUMER_MISSING)


async def watch_lag(streams: Streams, consumers: Callable[[], Sequence[Consumer]]) -> None:
    """Keep the metrics up to date, and log which consumers are missing, until the task is cancelled.

    Args:
        streams: measures the lag.
        consumers: returns the consumers to measure; the metrics of all others are removed.
    """
    exported: set[Consumer] = set()
    missing: set[Consumer] = set()
    for number in count():
        current = consumers()
        for consumer in exported.difference(current):
            _remove(consumer)
        new = set(current) - exported
        exported = set(current)
        for consumer in current:
            supervision.beat()
            with_age = consumer in new or number % _AGE_EVERY == 0
            is_missing = await supervision.patiently(_measure(streams, consumer, with_age=with_age))
            if is_missing and consumer not in missing:
                _log.error("consumer_missing", stream=consumer.stream, consumer=consumer.name)
            if is_missing is not None:
                (missing.add if is_missing else missing.discard)(consumer)
        await supervision.patiently(asyncio.sleep(_INTERVAL))


async def _measure(streams: Streams, consumer: Consumer, *, with_age: bool) -> bool | None:
    """Export the lag, or NaN if it is unknown: the last known value would look like a current one.

    Returns:
        Whether the consumer is missing, or None if that is unknown.
    """
    labels = (consumer.stream, consumer.name)
    try:
        lag = await streams.lag(consumer)
        CONSUMER_PENDING.labels(*labels).set(math.nan if lag is None else lag.pending)
        CONSUMER_ACK_PENDING.labels(*labels).set(math.nan if lag is None else lag.ack_pending)
        CONSUMER_MISSING.labels(*labels).set(lag is None)
        if lag is None:
            CONSUMER_OLDEST.labels(*labels).set(math.nan)
        elif with_age:
            CONSUMER_OLDEST.labels(*labels).set(await _age(streams, consumer, lag))
    except BusUnavailableError:
        for metric in _METRICS:
            metric.labels(*labels).set(math.nan)
        return None
    return lag is None


async def _age(streams: Streams, consumer: Consumer, lag: Lag) -> float:
    """Return the age of the oldest message that is not processed, in seconds."""
    if not lag.pending + lag.ack_pending:
        return 0
    oldest = await streams.oldest(consumer.stream, lag.subjects, lag.done)
    return (datetime.now(UTC) - datetime.fromisoformat(oldest.stored_at)).total_seconds() if oldest else 0


def _remove(consumer: Consumer) -> None:
    for metric in _METRICS:
        metric.remove(consumer.stream, consumer.name)
