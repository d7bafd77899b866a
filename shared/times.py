"""Times as providers and mail programs write them."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_tz

_EPOCH = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,9})?")
_ISO = re.compile(
    r"(?P<year>\d{4})(?P<dash>[-/]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:[Tt ]?(?P<hour>[01]\d|2[0-4]):?(?P<minute>[0-5]\d)"
    r"(?::?(?P<second>[0-5]\d|60)(?:[.,](?P<fraction>\d{1,12}))?)?"
    r" ?(?P<offset>[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?",
    flags=re.ASCII,
)
_DIGITS = re.compile(r"(?:19|20)[0-9]{12}")
"""Year to second. Read as milliseconds since 1970, the digits would be a time in the far future."""

_ZONE_AND_OFFSET = re.compile(r"(?:GMT|UTC)(?=[+-][0-9])")
_HALF_DAY = re.compile(r"\b[AP]M\b", flags=re.IGNORECASE)
_MAX_DATE = 200

_MILLISECONDS, _MICROSECONDS, _NANOSECONDS = 1e11, 1e14, 1e17
"""The least numbers that are taken for these units rather than for seconds."""


def read_time(value: object) -> datetime | None:
    """Return the time that a value denotes, or None if it cannot be read.

    It may be a number of seconds since 1970 (or of milli-, micro- or nanoseconds), ISO 8601 with the common
    deviations, or RFC 5322. A leap second counts as the second after it, and a time without an offset is in
    UTC.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _from_epoch(float(value))
        if not isinstance(value, str):
            return None
        text = value.strip()
        if _EPOCH.fullmatch(text) and not _DIGITS.fullmatch(text):
            return _from_epoch(float(text))
        found = _ISO.fullmatch(text)
        return _from_iso(found) if found else _from_words(text)
    except (ValueError, OverflowError, OSError, TypeError, LookupError):
        return None


def _from_epoch(number: float) -> datetime:
    for least, per_second in ((_NANOSECONDS, 1e9), (_MICROSECONDS, 1e6), (_MILLISECONDS, 1e3)):
        if number >= least:
            number /= per_second
            break
    return datetime.fromtimestamp(number, UTC)


def _from_iso(found: re.Match[str]) -> datetime:
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    microseconds = int((found["fraction"] or "0")[:6].ljust(6, "0"))
    since_midnight = timedelta(hours=hour, minutes=minute, seconds=second, microseconds=microseconds)
    date = f"{found['year']}-{found['month']}-{found['day']}"
    day = datetime.fromisoformat(f"{date}T00:00:00{_offset(found['offset'])}")
    return _in_utc(day + since_midnight)


def _from_words(text: str) -> datetime | None:
    """Return a date as e-mails have it (RFC 5322, 3.3 and 4.3), or as JavaScript writes it."""
    text = _ZONE_AND_OFFSET.sub("", " ".join(text[:_MAX_DATE].split()))
    parts = None if _HALF_DAY.search(text) else parsedate_tz(text)
    if parts is None:
        return None
    zone = timezone(timedelta(seconds=parts[9] or 0))
    year, month, day, hour, minute, second = parts[:6]
    leap = timedelta(seconds=second // 60)
    return _in_utc(datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone) + leap)


def _offset(text: str | None) -> str:
    if text is None or text in {"Z", "z", "UTC", "GMT"}:
        return "+00:00"
    digits = text[1:].replace(":", "").ljust(4, "0")
    return f"{text[0]}{digits[:2]}:{digits[2:]}"


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
