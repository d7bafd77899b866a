from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from services.notifier.lane import Lane
from services.notifier.tail import Entry, Tail
from shared.bus.client import Bus


class Numbers(Tail[int]):
    """A stream in which the value of each message is its sequence."""

    def __init__(self, last: int) -> None:
        super().__init__(Bus(), "NUMBERS", ">", lambda _: None, interval=1)
        self.last = last

    async def after(
        self,
        position: int,
        wanted: Callable[[int], bool],
        count: int,
        *,
        subject: str | None = None,  # noqa: ARG002 - there is only one
    ) -> tuple[list[Entry[int]], int]:
        found = [number for number in range(position + 1, self.last + 1) if wanted(number)]
        end = found[count - 1] if len(found) > count else self.last
        return [Entry(number, number, "") for number in found[:count]], end


def lane_of(last: int, *, limit: int = 3) -> Lane[int]:
    return Lane(Numbers(last), limit=limit, wanted=lambda number: number % 2 == 0, subject=None)


async def taken(lane: Lane[int]) -> list[int]:
    return [entry.sequence for entry in await lane.take()]


async def test_only_a_few_messages_are_in_progress() -> None:
    lane = lane_of(20)
    assert await taken(lane) == [2, 4, 6]
    assert await taken(lane) == []
    assert not lane.has_more
    lane.finish(4)
    assert lane.has_more
    assert await taken(lane) == [8]


async def test_the_floor_is_below_everything_in_progress() -> None:
    lane = lane_of(8)
    await lane.take()
    lane.finish(4)
    assert (lane.floor, lane.finished) == (1, [4])
    lane.finish(2)
    assert (lane.floor, lane.finished) == (5, [])


async def test_messages_that_are_not_wanted_are_passed_over() -> None:
    lane = lane_of(7)
    await lane.take()
    for number in (2, 4, 6):
        lane.finish(number)
    await lane.take()
    assert lane.floor == 7


@given(st.data())
async def test_after_a_crash_what_was_not_finished_is_taken_again_and_nothing_else(
    data: st.DataObject,
) -> None:
    lane, finished = lane_of(40), set[int]()
    in_progress: set[int] = set()
    for _ in range(data.draw(st.integers(0, 30))):
        in_progress.update(await taken(lane))
        if in_progress:
            number = data.draw(st.sampled_from(sorted(in_progress)))
            in_progress.discard(number)
            finished.add(number)
            lane.finish(number)
    other = lane_of(40, limit=100)
    other.resume(lane.floor, lane.finished)
    again = set(await taken(other))
    assert again == set(range(2, 41, 2)) - finished
