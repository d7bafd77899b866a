"""A JetStream in memory, with compare-and-set, deduplication by ids, schedules and times to live.

It follows the declared topology. `tests/integration/bus/test_jetstream.py` shows that it behaves like the
real JetStream.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.bus import topology
from shared.bus.client import Bus
from shared.bus.direct_get import Answer, StoredMessage
from shared.bus.publisher import Outgoing, Publisher, PublishRejectedError
from shared.bus.topology import Stream

_WRONG_LAST_SEQUENCE = 10_071
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A message in a stream."""

    stream: str
    sequence: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    stored_at: datetime

    @property
    def due(self) -> datetime | None:
        """The time when a schedule is published to its target; None if the message is not a schedule."""
        schedule = self.headers.get("Nats-Schedule")
        return datetime.fromisoformat(schedule.removeprefix("@at ")) if schedule else None

    @property
    def kept_until(self) -> datetime:
        """The time when the message is dropped because of its time to live."""
        seconds = self.headers.get("Nats-TTL")
        return self.stored_at + timedelta(seconds=int(seconds.removesuffix("s"))) if seconds else _NEVER


def subject_matches(pattern: str, subject: str) -> bool:
    """Return whether a subject belongs to a pattern with the wildcards of NATS."""
    regex = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(regex, subject) is not None


def _sequence(stored: Stored) -> int:
    return stored.sequence


def _as_read(stored: Stored) -> StoredMessage:
    return StoredMessage(stored.subject, stored.sequence, stored.stored_at.isoformat(), stored.payload)


class JetStream:
    """The server; `clock` returns its time."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._streams = {str(each.name): each for each in topology.streams(replicas=1, max_bytes=-1)}
        self._stored: dict[str, list[Stored]] = {name: [] for name in self._streams}
        self._last_sequence = dict.fromkeys(self._streams, 0)
        self._known: dict[tuple[str, str], tuple[int, datetime]] = {}

    def messages(self, stream: str) -> list[Stored]:
        return list(self._stored[stream])

    def last(self, stream: str, subject: str) -> Stored | None:
        now = self._clock()
        kept = (each for each in reversed(self._stored[stream]) if now < each.kept_until)
        return next((each for each in kept if each.subject == subject), None)

    def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer:
        found = [self.last(stream, subject) for subject in subjects]
        return Answer([_as_read(each) for each in sorted(filter(None, found), key=_sequence)])

    def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer:
        found = [
            each
            for each in self._stored[stream]
            if each.sequence >= first and subject_matches(subject, each.subject)
        ]
        return Answer([_as_read(each) for each in found[:count]], is_complete=len(found) <= count)

    def store(self, stream: str, outgoing: Outgoing) -> int:
        """Store a message unless its id is known, and return its sequence.

        Raises:
            PublishRejectedError: the last message of the subject is not the expected one.
        """
        now, key = self._clock(), (stream, str(outgoing.id))
        if outgoing.id and key in self._known:
            sequence, since = self._known[key]
            if now - since < timedelta(seconds=self._streams[stream].duplicate_window or 0):
                return sequence
        expected = outgoing.headers.get("Nats-Expected-Last-Subject-Sequence")
        last = self.last(stream, outgoing.subject)
        if expected is not None and int(expected) != (last.sequence if last else 0):
            raise PublishRejectedError(_WRONG_LAST_SEQUENCE, "wrong last sequence")
        sequence = self._append(stream, outgoing.subject, outgoing.payload, outgoing.headers)
        self._known[key] = sequence, now
        return sequence

    def publish_due(self) -> None:
        """Publish the schedules that are due, as the server does."""
        for schedule in self.messages(Stream.DELAYED):
            if schedule.due and schedule.due <= self._clock():
                self._stored[Stream.DELAYED].remove(schedule)
                target = schedule.headers["Nats-Schedule-Target"]
                self._append(Stream.DELAYED, target, schedule.payload, {})

    publish_what_is_due = publish_due

    def _append(self, stream: str, subject: str, payload: bytes, headers: Mapping[str, str]) -> int:
        self._last_sequence[stream] += 1
        stored = Stored(stream, self._last_sequence[stream], subject, payload, headers, self._clock())
        if self._streams[stream].max_msgs_per_subject == 1:
            self._stored[stream] = [each for each in self._stored[stream] if each.subject != subject]
        self._stored[stream].append(stored)
        return stored.sequence


class BusTo(Bus):
    """A connection to the server in memory, which never breaks."""

    def __init__(self, server: JetStream) -> None:
        self._server = server

    async def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer:
        await asyncio.sleep(0)
        return self._server.last_messages(stream, subjects)

    async def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer:
        await asyncio.sleep(0)
        return self._server.next_messages(stream, first, count=count, subject=subject)


class PublisherTo(Publisher):
    def __init__(self, server: JetStream) -> None:
        self._server = server

    async def publish(self, stream: str, outgoing: Outgoing) -> int:
        await asyncio.sleep(0)
        return self._server.store(stream, outgoing)

    async def publish_atomically(self, stream: str, batch: Sequence[Outgoing]) -> None:
        for outgoing in batch:
            await self.publish(stream, outgoing)
