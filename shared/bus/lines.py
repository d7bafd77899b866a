"""Several events in one message, each on a line of its own (JSON Lines).

A message costs the server and each of its readers far more than another line does.
"""

from collections.abc import Iterable, Iterator

MAX_BYTES = 256 * 1024
"""The size of a message to which no more lines are added."""

_BOUNDARY = b"}\n{"
"""It occurs only between two events: inside one, it would not be JSON."""


def join(events: Iterable[bytes]) -> bytes:
    return b"\n".join(events)


def split(payload: bytes) -> Iterator[bytes]:
    """Return the events of a message; one that is alone may have any layout."""
    start = 0
    while (end := payload.find(_BOUNDARY, start)) >= 0:
        yield payload[start : end + 1]
        start = end + 2
    yield payload[start:]
