from typing import Annotated

from fastapi import APIRouter, Depends

from services.gateway.dead_letters.bulk import Progress, resolve_open
from services.gateway.dead_letters.schemas import (
    BulkCursor,
    BulkDiscardRequest,
    BulkReplayRequest,
    BulkResponse,
    DeadLetterCursor,
    DeadLetterParameters,
    DeadLetterWithHistory,
    DiscardRequest,
    DiscardResponse,
    ReplayResponse,
)
from services.gateway.dependencies import DeadLetters, DeadLetterServiceDep
from services.gateway.http.auth import AuthenticatedRoute, Caller
from services.gateway.http.deadline import deadline
from services.gateway.http.errors import NotFoundError, problems
from services.gateway.http.pagination import Page, decode_cursor, encode_cursor, page_of
from services.gateway.http.parameters import parse_uuid
from shared.resources.dead_letters import DeadLetterResponse, show_dead_letter

router = APIRouter(prefix="/api/dead-letters", tags=["dead letters"], route_class=AuthenticatedRoute)

_ONE_PROBLEMS = problems(401, 404, 409, 503)
_BODY_PROBLEMS = problems(400, 401, 413, 415, 422, 503)


@router.get("", summary="List dead letters, newest first", responses=problems(401, 422, 503))
async def list_dead_letters(
    parameters: DeadLetterParameters, dead_letters: DeadLetters
) -> Page[DeadLetterResponse]:
    listing = ("dead-letters", parameters.selected)
    cursor = decode_cursor(parameters.cursor, DeadLetterCursor, *listing)
    rows = await dead_letters.list(parameters.selected, cursor, parameters.limit + 1)
    return page_of(rows, parameters, show_dead_letter, DeadLetterCursor.of, *listing)


# The fixed paths come first, or the path with an id would answer requests with other methods.
@router.post("/replay", summary="Replay dead letters", status_code=202, responses=_BODY_PROBLEMS)
async def replay_dead_letters(
    body: BulkReplayRequest, caller: Caller, dead_letters: DeadLetters, service: DeadLetterServiceDep
) -> BulkResponse:
    """Replay the open dead letters that match a filter, oldest first.

    A request stops after `limit` dead letters, or after a few seconds. Repeat it with the returned
    `next_cursor` until that is null. A cursor is only valid for its own filter, and excludes dead letters
    that were created after the first request. Repeating a request is safe: a dead letter is not replayed
    twice.
    """
    listing = ("dead-letters", "replay", body.selected)
    start = decode_cursor(body.cursor, BulkCursor, *listing) or BulkCursor(until=service.clock())
    progress = await resolve_open(
        dead_letters, body.selected, start, body.limit, lambda each: service.replay(each, caller)
    )
    return _bulk_response(progress, *listing)


@router.post("/discard", summary="Discard dead letters", status_code=202, responses=_BODY_PROBLEMS)
async def discard_dead_letters(
    body: BulkDiscardRequest, caller: Caller, dead_letters: DeadLetters, service: DeadLetterServiceDep
) -> BulkResponse:
    """Discard the open dead letters that match a filter, oldest first. Repeat the request as for a replay."""
    listing = ("dead-letters", "discard", body.selected)
    start = decode_cursor(body.cursor, BulkCursor, *listing) or BulkCursor(until=service.clock())
    progress = await resolve_open(
        dead_letters,
        body.selected,
        start,
        body.limit,
        lambda each: service.discard(each, body.reason, caller),
    )
    return _bulk_response(progress, *listing)


async def _find(id: str, dead_letters: DeadLetters) -> DeadLetterWithHistory:  # noqa: A002 - the name in the path
    id_ = parse_uuid(id)
    dead_letter = id_ and await dead_letters.get(id_)
    if not dead_letter:
        raise NotFoundError("dead_letter_not_found", "Dead letter not found")
    return dead_letter


@router.get(
    "/{id}", summary="Get a dead letter with the history of its message", responses=problems(401, 404, 503)
)
async def get_dead_letter(
    dead_letter: Annotated[DeadLetterWithHistory, Depends(_find)],
) -> DeadLetterWithHistory:
    return dead_letter


@router.post("/{id}/replay", summary="Replay a dead letter", status_code=202, responses=_ONE_PROBLEMS)
async def replay_dead_letter(
    id: str,  # noqa: A002 - the name in the path
    caller: Caller,
    dead_letters: DeadLetters,
    service: DeadLetterServiceDep,
) -> ReplayResponse:
    """Send the message again, in a new generation. Repeating the request does not replay it twice.

    A payload that could not be read or stored returns to its stream unchanged, and a message that was sent is
    not sent again. The response is a 409 if the dead letter was already replayed or discarded, or if its
    message was sent after all: the provider's response or a receipt may arrive after the failure.
    """
    async with deadline():
        dead_letter = await _find(id, dead_letters)
        generation = await service.replay(dead_letter, caller)
    return ReplayResponse(
        dead_letter_id=dead_letter.id, message_id=dead_letter.message_id, generation=generation
    )


@router.post(
    "/{id}/discard",
    summary="Discard a dead letter",
    status_code=202,
    responses={**_BODY_PROBLEMS, **_ONE_PROBLEMS},
)
async def discard_dead_letter(
    id: str,  # noqa: A002 - the name in the path
    body: DiscardRequest,
    caller: Caller,
    dead_letters: DeadLetters,
    service: DeadLetterServiceDep,
) -> DiscardResponse:
    """Discard a dead letter. It remains in the list as discarded, with the reason and the caller.

    The response is a 409 if the dead letter was already replayed or discarded.
    """
    async with deadline():
        dead_letter = await _find(id, dead_letters)
        await service.discard(dead_letter, body.reason, caller)
    return DiscardResponse(dead_letter_id=dead_letter.id, message_id=dead_letter.message_id)


def _bulk_response(progress: Progress, *listing: object) -> BulkResponse:
    next_cursor = encode_cursor(progress.end, *listing) if progress.end else None
    return BulkResponse(resolved=progress.resolved, skipped=progress.skipped, next_cursor=next_cursor)
