from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from services.gateway import paging
from services.gateway.errors import ConflictError, NotFoundError
from services.gateway.openapi import problems
from services.gateway.paging import DeadLetterCursor
from services.gateway.parameters import DEFAULT_LIMIT, CursorText, Limit, as_uuid
from services.gateway.queries import DeadLetterFilter
from services.gateway.state import state_of
from services.gateway.views import DeadLetterView, Page, Replay, answer
from shared.channels import Channel, Direction

router = APIRouter(prefix="/api/dead-letters", tags=["dead letters"])

Reason = Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9_.-]*$")]


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
    replayed: bool | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    wanted = DeadLetterFilter(direction, channel, reason, message_id, replayed)
    start = paging.decode(cursor, DeadLetterCursor, "dead-letters", wanted)
    found = await state_of(request).archive.dead_letters(wanted, start, limit)
    next_cursor = found.end and paging.encode(found.end, "dead-letters", wanted)
    return answer(Page[DeadLetterView](items=found.items, next_cursor=next_cursor))


@router.get(
    "/{id}",
    summary="Something that was given up",
    response_model=DeadLetterView,
    responses=problems(401, 404, 503),
)
async def get_dead_letter(request: Request, id: str) -> Response:  # noqa: A002 - the name in the path
    return answer(await _find(request, id))


@router.post(
    "/{id}/replay",
    summary="Try again what was given up",
    status_code=202,
    response_model=Replay,
    responses=problems(401, 404, 409, 503),
)
async def replay_dead_letter(request: Request, id: str) -> Response:  # noqa: A002
    """Its message starts over, in the next round; done twice, it is one replay."""
    dead_letter = await _find(request, id)
    if dead_letter.replayed:
        raise ConflictError("It was replayed already")
    round_ = await state_of(request).intake.replay(dead_letter)
    return answer(Replay(dead_letter_id=dead_letter.id, message_id=dead_letter.message_id, round=round_), 202)


async def _find(request: Request, text: str) -> DeadLetterView:
    id_ = as_uuid(text)
    dead_letter = id_ and await state_of(request).archive.dead_letter(id_)
    if not dead_letter:
        raise NotFoundError("dead letter")
    return dead_letter
