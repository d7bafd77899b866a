"""The messages of a stream for an endpoint: a few are being delivered, and the others stay in the stream."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from services.notifier.tail import Entry, Tail

_MAX_FINISHED = 1_000
"""The number of messages that may be finished while an earlier one is not."""

T = TypeVar("T")


class Lane(Generic[T]):
    """Takes messages for an endpoint, and keeps track of those that are finished.

    Args:
        tail: the stream.
        limit: how many messages may be in progress at the same time.
        wanted: selects the messages of the endpoint.
        subject: a pattern of these messages.
    """

    def __init__(
        self, tail: Tail[T], *, limit: int, wanted: Callable[[T], bool], subject: str | None
    ) -> None:
        self.tail = tail
        self._limit = limit
        self._wanted = wanted
        self._subject = subject
        self._position = 0
        self._in_progress: set[int] = set()
        self._finished: set[int] = set()

    def resume(self, floor: int, finished: Iterable[int]) -> None:
        """Continue after the floor, except with the messages that were finished already."""
        self._position = floor
        self._finished = {sequence for sequence in finished if sequence > floor}

    @property
    def floor(self) -> int:
        """The sequence up to which all messages are finished."""
        return min(self._in_progress) - 1 if self._in_progress else self._position

    @property
    def finished(self) -> list[int]:
        """The messages after the floor that are finished."""
        return sorted(self._finished)

    @property
    def _room(self) -> int:
        return min(self._limit - len(self._in_progress), _MAX_FINISHED - len(self._finished))

    @property
    def has_more(self) -> bool:
        """Whether there is room for more messages, and the stream may have some."""
        return self._room > 0 and self._position < self.tail.last

    async def take(self) -> list[Entry[T]]:
        """Return messages to be processed, each of which has to be passed to `finish` afterwards.

        Raises:
            BusUnavailableError: NATS does not respond.
        """
        if (room := self._room) <= 0:
            return []
        entries, self._position = await self.tail.after(
            self._position, self._wanted, room, subject=self._subject
        )
        new = [entry for entry in entries if entry.sequence not in self._finished]
        self._in_progress.update(entry.sequence for entry in new)
        self._prune()
        return new

    def finish(self, sequence: int) -> None:
        self._in_progress.discard(sequence)
        self._finished.add(sequence)
        self._prune()

    def _prune(self) -> None:
        floor = self.floor
        self._finished = {sequence for sequence in self._finished if sequence > floor}
