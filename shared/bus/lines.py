"""Several events in one message, each on a line of its own (JSON Lines).

For the server and for each reader, a message costs far more than an additional line.
"""

from collections.abc import Iterable, Iterator

MAX_BYTES = 256 * 1024
"""The size from which no more lines are added to a message."""

_BOUNDARY = b"}\n{"
"""It occurs only between two events: within an event, it would not be valid JSON."""


def join(events: Iterable[bytes]) -> bytes:
    return b"\n".join(events)


def split(payload: bytes) -> Iterator[bytes]:
    """Yield the events of a message. A single event may be formatted in any way."""
    start = 0
    while (end := payload.find(_BOUNDARY, start)) >= 0:
        yield payload[start : end + 1]
        start = end + 2
    yield payload[start:]
