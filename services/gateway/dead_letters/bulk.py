"""Resolves many dead letters in one request, as far as the time of a request goes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from services.gateway.archive import Archive, Slice
from services.gateway.http.errors import ConflictError
from services.gateway.http.pagination import BulkCursor
from services.gateway.http.deadline import PATIENCE
from services.gateway.queries import DeadLetterFilter
from services.gateway.views import DeadLetterView, Skipped
from shared.errors import BusUnavailableError, NotNowError

_CHUNK = 100
"""Dead letters that are read and resolved at once; each may hold some hundred kilobytes."""

_LAST_START = 1.0
"""Seconds after which no further chunk is begun: to read one may take 4, and clients wait for 5."""

Resolve = Callable[[DeadLetterView], Awaitable[object]]


@dataclass(slots=True)
class Progress:
    """How far it went.

    Attributes:
        taken: how many were resolved.
        end: where to go on; None when no more are left.
    """

    end: BulkCursor | None
    taken: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.taken + len(self.skipped)


async def resolve_open(
    archive: Archive, wanted: DeadLetterFilter, start: BulkCursor, limit: int, resolve: Resolve
) -> Progress:
    """Resolve the open dead letters of the filter after `start`, oldest first.

    It ends early, with what was done so far, when time runs short or something does not answer.

    Raises:
        NotNowError: nothing could be done.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    progress = Progress(start)
    while progress.end is not None and progress.size < limit and clock() < began + _LAST_START:
        try:
            chunk = await archive.open_dead_letters(wanted, progress.end, min(_CHUNK, limit - progress.size))
            results = await _resolve_all(chunk.items, resolve, patience=began + PATIENCE - clock())
            _record(progress, chunk, results)
        except NotNowError:
            if not progress.size:
                raise
            break
    return progress


async def _resolve_all(
    items: Sequence[DeadLetterView], resolve: Resolve, *, patience: float
) -> list[BaseException | object]:
    tasks = [asyncio.ensure_future(resolve(item)) for item in items]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=patience)
        for task in late:
            task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


def _record(
    progress: Progress, chunk: Slice[DeadLetterView, BulkCursor], results: Sequence[BaseException | object]
) -> None:
    """Count what was settled, and go on behind it.

    Raises:
        BusUnavailableError: some of it was not, and is to come again.
    """
    unsettled = False
    for item, result in zip(chunk.items, results, strict=True):
        match result:
            case NotNowError() | asyncio.CancelledError():
                unsettled = True
                continue
            case ConflictError():
                progress.skipped.append(Skipped(dead_letter_id=item.id, reason=result.detail))
            case BaseException():
                raise result
            case _:
                progress.taken += 1
        if not unsettled and progress.end is not None:
            progress.end = progress.end.behind(item.created_at, item.id)
    if unsettled:
        raise BusUnavailableError("NATS did not acknowledge in time")
    progress.end = chunk.end
