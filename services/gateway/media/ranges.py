"""Range requests (RFC 9110, 14) for a single range of bytes."""

import re

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class UnsatisfiableRangeError(ValueError):
    """The range begins beyond the end of the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the byte after the last one, or None if the whole file is to be sent.

    A header that cannot be read, or that asks for several ranges, is ignored, as the standard allows.

    Raises:
        UnsatisfiableRangeError: no byte of the file is in the range.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < start:
        return None
    if start >= size or (not first and int(last) == 0):
        raise UnsatisfiableRangeError
    return start, end
