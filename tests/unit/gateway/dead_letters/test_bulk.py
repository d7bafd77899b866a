"""Resolving as many dead letters as possible within the time of one request."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Row

from services.gateway.dead_letters.bulk import Progress, resolve_open
from services.gateway.dead_letters.queries import DeadLetterQueries
from services.gateway.dead_letters.schemas import BulkCursor, DeadLetterFilter
from services.gateway.http.errors import ConflictError
from shared.channels import Channel, Direction
from shared.dead_letters import DeadLetter, Origin
from shared.errors import BusUnavailableError, DatabaseUnavailableError
from shared.ids import DeadLetterId, dead_letter_id
from shared.resources.dead_letters import DeadLetterResponse, DeadLetterState
from tests.unit.gateway.in_memory import NOW, NoDatabase
from tests.virtual_time import VirtualTimeLoop


def id_of(number: int) -> DeadLetterId:
    return dead_letter_id("bulk", number)


class Stored(DeadLetterQueries):
    """Open dead letters, a second apart; the database stops answering after some of them."""

    def __init__(self, count: int, *, readable: int = 1_000) -> None:
        super().__init__(NoDatabase())
        self._rows = [_row(number) for number in range(count)]
        self._readable = readable

    async def open(self, selected: DeadLetterFilter, cursor: BulkCursor, limit: int) -> Sequence[Row[Any]]:
        assert selected == DeadLetterFilter()
        start = 0
        if cursor.after is not None:
            start = next(n for n, row in enumerate(self._rows) if row.content["id"] == cursor.after.id) + 1
        if start >= self._readable:
            raise DatabaseUnavailableError("it does not answer")
        return self._rows[start : start + limit]


def _row(number: int) -> Any:  # noqa: ANN401 - a row
    dead_letter = DeadLetter(
        id=id_of(number),
        direction=Direction.INBOUND,
        channel=Channel.SMS,
        reason="unknown_type",
        detail="v9",
        payload="{}",
        origin=Origin(stream="INBOUND", sequence=number + 1, subject="inbound.x", consumer="ingest-inbound"),
    )
    return SimpleNamespace(
        content=dict(dead_letter),
        state=DeadLetterState.OPEN,
        is_sent=False,
        resolved_by=None,
        created_at=NOW + timedelta(seconds=number),
    )


class Resolver:
    """Resolves dead letters, except that some of them raise an error, and some never end."""

    def __init__(self, errors: dict[int, Exception] | None = None, *, hanging: Sequence[int] = ()) -> None:
        self._errors = {id_of(number): error for number, error in (errors or {}).items()}
        self._hanging = {id_of(number) for number in hanging}
        self.resolved: list[DeadLetterId] = []

    async def __call__(self, dead_letter: DeadLetterResponse) -> None:
        if dead_letter.id in self._hanging:
            await asyncio.Event().wait()
        if error := self._errors.get(dead_letter.id):
            raise error
        self.resolved.append(dead_letter.id)


async def run(stored: Stored, resolver: Resolver, *, limit: int = 1_000) -> Progress:
    return await resolve_open(stored, DeadLetterFilter(), BulkCursor(until=NOW), limit, resolver)


def end_of(progress: Progress) -> object:
    return progress.end and progress.end.after and progress.end.after.id


async def test_all_are_resolved_in_several_steps() -> None:
    resolver = Resolver()
    progress = await run(Stored(250), resolver)

    assert (progress.resolved, progress.skipped, progress.end) == (250, [], None)
    assert set(resolver.resolved) == {id_of(number) for number in range(250)}


@pytest.mark.parametrize("limit", [1, 99, 100, 101, 249])
async def test_the_request_ends_at_its_limit(limit: int) -> None:
    progress = await run(Stored(250), Resolver(), limit=limit)

    assert (progress.resolved, end_of(progress)) == (limit, id_of(limit - 1))


async def test_there_may_be_no_open_dead_letter() -> None:
    progress = await run(Stored(0), Resolver())

    assert (progress.resolved, progress.skipped, progress.end) == (0, [], None)


async def test_one_that_cannot_be_resolved_is_skipped() -> None:
    resolver = Resolver({1: ConflictError("nothing_to_replay", "There is no payload to replay")})
    progress = await run(Stored(3), resolver)

    assert (progress.resolved, progress.end) == (2, None)
    [skipped] = progress.skipped
    assert (skipped.dead_letter_id, skipped.reason) == (id_of(1), "There is no payload to replay")


async def test_the_next_request_begins_at_the_first_one_without_a_result() -> None:
    progress = await run(Stored(5), Resolver({2: BusUnavailableError("no")}))

    assert (progress.resolved, end_of(progress)) == (4, id_of(1))


def in_virtual_time(request: Coroutine[None, None, Progress]) -> tuple[Progress, float]:
    """Return the progress of a request, and the seconds that it took."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(request), loop.time()
    finally:
        loop.close()


def test_one_that_takes_too_long_is_left_to_the_next_request() -> None:
    progress, seconds = in_virtual_time(run(Stored(3), Resolver(hanging=[1])))

    assert (progress.resolved, end_of(progress)) == (2, id_of(0))
    assert seconds < 5


def test_no_further_step_is_started_after_a_second() -> None:
    async def slowly(_: DeadLetterResponse) -> None:
        await asyncio.sleep(0.7)

    request = resolve_open(Stored(250), DeadLetterFilter(), BulkCursor(until=NOW), 1_000, slowly)
    progress, seconds = in_virtual_time(request)

    assert (progress.resolved, end_of(progress)) == (200, id_of(199))
    assert seconds == pytest.approx(1.4)


async def test_without_the_database_the_progress_so_far_counts() -> None:
    progress = await run(Stored(250, readable=200), Resolver())

    assert (progress.resolved, end_of(progress)) == (200, id_of(199))


async def test_without_the_database_and_any_progress_the_request_fails() -> None:
    with pytest.raises(DatabaseUnavailableError):
        await run(Stored(250, readable=0), Resolver())


async def test_without_nats_and_any_progress_the_request_fails() -> None:
    with pytest.raises(BusUnavailableError):
        await run(Stored(2), Resolver(dict.fromkeys(range(2), BusUnavailableError("no"))))


async def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await run(Stored(3), Resolver({1: ZeroDivisionError()}))
