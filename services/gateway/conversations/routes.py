from fastapi import APIRouter, Request, Response

from services.gateway.http import pagination
from services.gateway.http.errors import NotFoundError
from services.gateway.openapi import problems
from services.gateway.http.pagination import ConversationCursor, MessageCursor
from services.gateway.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    ParticipantText,
    as_conversation,
    as_participant,
)
from services.gateway.queries import ConversationFilter
from services.gateway.state import state_of
from services.gateway.views import ConversationView, MessageView, Page, answer
from shared.channels import Channel

router = APIRouter(prefix="/api/conversations", tags=["conversations"])


@router.get(
    "",
    summary="Conversations, that of the newest message first",
    response_model=Page[ConversationView],
    responses=problems(401, 422, 503),
)
async def list_conversations(
    request: Request,
    participant: ParticipantText = None,
    channel: Channel | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    """Turning the pages shows each conversation once, even if messages arrive meanwhile."""
    state = state_of(request)
    address = as_participant(participant, default_region=state.default_region)
    wanted = ConversationFilter(channel=channel, participant=address)
    start = paging.decode(cursor, ConversationCursor, "conversations", wanted)
    found = await state.archive.conversations(wanted, start, limit)
    next_cursor = found.end and paging.encode(found.end, "conversations", wanted)
    return answer(Page[ConversationView](items=found.items, next_cursor=next_cursor))


@router.get(
    "/{id}",
    summary="A conversation, by its id or its key",
    response_model=ConversationView,
    responses=problems(401, 404, 503),
)
async def get_conversation(request: Request, id: str) -> Response:  # noqa: A002 - the name in the path
    reference = as_conversation(id)
    conversation = reference and await state_of(request).archive.conversation(reference)
    if not conversation:
        raise NotFoundError("conversation")
    return answer(conversation)


@router.get(
    "/{id}/messages",
    summary="The messages of a conversation, oldest first",
    response_model=Page[MessageView],
    responses=problems(401, 404, 422, 503),
)
async def list_messages(
    request: Request,
    id: str,  # noqa: A002
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    reference = as_conversation(id)
    if reference is None:
        raise NotFoundError("conversation")
    start = paging.decode(cursor, MessageCursor, "messages", reference)
    found = await state_of(request).archive.messages(reference, start, limit)
    if found is None:
        raise NotFoundError("conversation")
    next_cursor = found.end and paging.encode(found.end, "messages", reference)
    return answer(Page[MessageView](items=found.items, next_cursor=next_cursor))
