from collections.abc import Sequence

from services.notifier.tail import Tail
from shared import supervision
from shared.bus.client import Bus
from shared.bus.direct_get import Answer, StoredMessage
from tests.waiting import eventually


class Replica(Bus):
    """A replica of a stream that has some of its messages."""

    def __init__(self) -> None:
        self.newest = 1

    async def until_connected(self) -> None:
        pass

    async def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer:  # noqa: ARG002
        return Answer([_message(self.newest)])

    async def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer:  # noqa: ARG002
        return Answer([_message(sequence) for sequence in range(first, self.newest + 1)])


def _message(sequence: int) -> StoredMessage:
    return StoredMessage("a", sequence, "", b"")


async def test_a_replica_that_lags_behind_hides_no_message() -> None:
    replica = Replica()
    tail = Tail(replica, "NUMBERS", ">", lambda message: message.sequence, interval=0.01)

    async def has_read() -> bool:
        return tail.last == replica.newest

    async def sequences_after(position: int) -> tuple[list[int], int]:
        entries, position = await tail.after(position, lambda _: True, 10)
        return [entry.sequence for entry in entries], position

    async with supervision.running("tail", tail.run()):
        await eventually(has_read)
        replica.newest = 3
        await eventually(has_read)
        replica.newest = 1
        assert await sequences_after(0) == ([1], 1)
        assert await sequences_after(1) == ([2, 3], 3)
