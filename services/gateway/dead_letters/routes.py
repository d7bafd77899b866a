from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from services.gateway.http import pagination
from services.gateway.http.auth import client_of
from services.gateway.http.body import read_model
from services.gateway.dead_letters.bulk import Resolve, resolve_open
from services.gateway.http.errors import NotFoundError
from services.gateway.openapi import problems, takes
from services.gateway.http.pagination import BulkCursor, DeadLetterCursor
from services.gateway.http.parameters import DEFAULT_LIMIT, CursorText, Limit, as_uuid
from services.gateway.http.deadline import patience
from services.gateway.queries import DeadLetterFilter
from services.gateway.schemas import BulkDiscard, BulkReplay, Discard
from services.gateway.state import state_of
from services.gateway.views import (
    BulkResult,
    DeadLetterState,
    DeadLetterView,
    DeadLetterWithHistory,
    Discarded,
    Page,
    Replay,
    answer,
)
from shared.channels import Channel, Direction

router = APIRouter(prefix="/api/dead-letters", tags=["dead letters"])

Reason = Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9_.-]*$")]

_ONE_PROBLEMS = problems(401, 404, 409, 503)
_BODY_PROBLEMS = problems(400, 401, 413, 415, 422, 503)


@router.get(
    "",
    summary="What was given up, newest first",
    response_model=Page[DeadLetterView],
    responses=problems(401, 422, 503),
)
async def list_dead_letters(  # noqa: PLR0913 - filters
    request: Request,
    direction: Direction | None = None,
    channel: Channel | None = None,
    reason: Reason = None,
    message_id: UUID | None = None,
    *,
    state: DeadLetterState | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    wanted = DeadLetterFilter(direction, channel, reason, message_id, state)
    start = paging.decode(cursor, DeadLetterCursor, "dead-letters", wanted)
    found = await state_of(request).archive.dead_letters(wanted, start, limit)
    next_cursor = found.end and paging.encode(found.end, "dead-letters", wanted)
    return answer(Page[DeadLetterView](items=found.items, next_cursor=next_cursor))


# The fixed paths come first, or the one with an id would answer for their wrong methods.
@router.post(
    "/replay",
    summary="Try again all that was given up",
    status_code=202,
    response_model=BulkResult,
    responses=_BODY_PROBLEMS,
    openapi_extra=takes(BulkReplay),
)
async def replay_dead_letters(request: Request) -> Response:
    """Replay the open ones of a filter, oldest first; a filter without a condition is refused, see `all`.

    A call ends after `limit` dead letters or some seconds. Repeat it with `next_cursor` until that is null;
    `cursor` goes with the same filter only, and leaves out what was given up since the first call. To repeat
    a call is safe: what it has done already is not done again.
    """
    state = state_of(request)
    bulk = await read_model(request, BulkReplay, default_region=state.default_region)
    by = client_of(request)
    return await _resolve(request, bulk, "replay", lambda each: state.resolver.replay(each, by))


@router.post(
    "/discard",
    summary="Leave all of it at that",
    status_code=202,
    response_model=BulkResult,
    responses=_BODY_PROBLEMS,
    openapi_extra=takes(BulkDiscard),
)
async def discard_dead_letters(request: Request) -> Response:
    """Discard the open ones of a filter, oldest first, in as many calls as a replay of them takes."""
    state = state_of(request)
    bulk = await read_model(request, BulkDiscard, default_region=state.default_region)
    by = client_of(request)
    return await _resolve(
        request, bulk, "discard", lambda each: state.resolver.discard(each, bulk.reason, by)
    )


@router.get(
    "/{id}",
    summary="Something that was given up, what became of it, and the history of its message",
    response_model=DeadLetterWithHistory,
    responses=problems(401, 404, 503),
)
async def get_dead_letter(request: Request, id: str) -> Response:  # noqa: A002 - the name in the path
    return answer(await _find(request, id))


@router.post(
    "/{id}/replay",
    summary="Try again what was given up",
    status_code=202,
    response_model=Replay,
    responses=_ONE_PROBLEMS,
)
async def replay_dead_letter(request: Request, id: str) -> Response:  # noqa: A002
    """Its message starts over, in the next generation; done twice, it is one replay.

    What could not be read or stored goes back, as it was, to the stream that it came from, and nothing that
    was sent is sent again. What was replayed or discarded already is a 409.
    """
    async with patience():
        dead_letter = await _find(request, id)
        generation = await state_of(request).resolver.replay(dead_letter, client_of(request))
    return answer(Replay(dead_letter_id=dead_letter.id, message_id=dead_letter.message_id, generation=generation), 202)


@router.post(
    "/{id}/discard",
    summary="Leave it at that",
    status_code=202,
    response_model=Discarded,
    responses={**_BODY_PROBLEMS, **_ONE_PROBLEMS},
    openapi_extra=takes(Discard),
)
async def discard_dead_letter(request: Request, id: str) -> Response:  # noqa: A002
    """It stays in the list, as discarded, with the reason and who did it.

    What was replayed or discarded already is a 409.
    """
    state = state_of(request)
    discard = await read_model(request, Discard, default_region=state.default_region)
    async with patience():
        dead_letter = await _find(request, id)
        await state.resolver.discard(dead_letter, discard.reason, client_of(request))
    return answer(Discarded(dead_letter_id=dead_letter.id, message_id=dead_letter.message_id), 202)


async def _resolve(request: Request, bulk: BulkReplay | BulkDiscard, what: str, resolve: Resolve) -> Response:
    state, chosen = state_of(request), bulk.filter_
    wanted = DeadLetterFilter(**dict(chosen)) if chosen else DeadLetterFilter()
    listing = ("dead-letters", what, wanted)
    start = paging.decode(bulk.cursor, BulkCursor, *listing) or BulkCursor(until=state.resolver.clock())
    progress = await resolve_open(state.archive, wanted, start, bulk.limit, resolve)
    next_cursor = progress.end and paging.encode(progress.end, *listing)
    result = BulkResult(taken=progress.taken, skipped=progress.skipped, next_cursor=next_cursor)
    return answer(result, 202)


async def _find(request: Request, text: str) -> DeadLetterWithHistory:
    id_ = as_uuid(text)
    dead_letter = id_ and await state_of(request).archive.dead_letter(id_)
    if not dead_letter:
        raise NotFoundError("dead letter")
    return dead_letter
