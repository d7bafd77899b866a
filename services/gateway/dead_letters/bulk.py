"""Resolves as many dead letters as possible within the time of one request."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from services.gateway.dead_letters.queries import DeadLetterQueries
from services.gateway.dead_letters.schemas import BulkCursor, DeadLetterFilter, SkippedDeadLetter
from services.gateway.http.deadline import DEADLINE
from services.gateway.http.errors import ConflictError
from shared.errors import BusUnavailableError, UnavailableError
from shared.resources.dead_letters import DeadLetterResponse, show_dead_letter

_CHUNK = 100
"""Dead letters that are read and resolved at once; each may have a few hundred kilobytes."""

_LAST_START = 1.0
"""Seconds after which no further chunk is started: a chunk may take 4, and clients wait for 5."""

Resolve = Callable[[DeadLetterResponse], Awaitable[object]]


@dataclass(slots=True)
class Progress:
    """The progress of a bulk request.

    Attributes:
        end: where the next request continues; None when no more are left.
    """

    end: BulkCursor | None
    resolved: int = 0
    skipped: list[SkippedDeadLetter] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.resolved + len(self.skipped)


async def resolve_open(
    dead_letters: DeadLetterQueries,
    selected: DeadLetterFilter,
    start: BulkCursor,
    limit: int,
    resolve: Resolve,
) -> Progress:
    """Resolve the open dead letters that match a filter, continuing at `start`, oldest first.

    It ends early, with the progress so far, when time runs out or NATS or PostgreSQL does not answer.

    Raises:
        UnavailableError: nothing could be resolved.
    """
    clock = asyncio.get_running_loop().time
    started_at = clock()
    progress = Progress(start)
    while progress.end is not None and progress.size < limit and clock() < started_at + _LAST_START:
        size = min(_CHUNK, limit - progress.size)
        try:
            rows = await dead_letters.open(selected, progress.end, size + 1)
            chunk = [show_dead_letter(row) for row in rows[:size]]
            results = await _resolve_all(chunk, resolve, seconds=started_at + DEADLINE - clock())
            _record(progress, chunk, results)
        except UnavailableError:
            if not progress.size:
                raise
            break
        if len(rows) <= size:
            progress.end = None
    return progress


async def _resolve_all(
    items: Sequence[DeadLetterResponse], resolve: Resolve, *, seconds: float
) -> list[BaseException | object]:
    tasks = [asyncio.ensure_future(resolve(item)) for item in items]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


def _record(
    progress: Progress, items: Sequence[DeadLetterResponse], results: Sequence[BaseException | object]
) -> None:
    """Count the results, and advance past the items before the first one without a result.

    Raises:
        BusUnavailableError: some items have no result, and have to be resolved again.
    """
    has_gap = False
    for item, result in zip(items, results, strict=True):
        match result:
            case UnavailableError() | asyncio.CancelledError():
                has_gap = True
                continue
            case ConflictError():
                progress.skipped.append(SkippedDeadLetter(dead_letter_id=item.id, reason=result.detail))
            case BaseException():
                raise result
            case _:
                progress.resolved += 1
        if not has_gap and progress.end is not None:
            progress.end = progress.end.advance(item.created_at, item.id)
    if has_gap:
        raise BusUnavailableError("NATS did not acknowledge in time")
