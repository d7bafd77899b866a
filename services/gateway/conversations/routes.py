from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from services.gateway.conversations.queries import Reference
from services.gateway.conversations.schemas import MAX_BIGINT, ConversationCursor, ConversationParameters
from services.gateway.dependencies import Conversations, DefaultRegion
from services.gateway.http.errors import NotFoundError, problems
from services.gateway.http.pagination import Page, PageParameters, decode_cursor, page_of
from services.gateway.http.parameters import parse_address, parse_uuid
from services.gateway.messages.schemas import MessageCursor
from shared.resources.conversations import ConversationResponse, show_conversation
from shared.resources.messages import MessageResponse, show_message

router = APIRouter(prefix="/api/conversations", tags=["conversations"])


async def parse_reference(id: str) -> Reference:  # noqa: A002 - the name in the path
    """Return the id or the key of a conversation in a path.

    Raises:
        NotFoundError: the text is neither of them.
    """
    if id.isascii() and id.isdecimal():
        # Python refuses to parse thousands of digits, and PostgreSQL has no integers above this one.
        number = int(id) if len(id) <= len(str(MAX_BIGINT)) else 0
        if 1 <= number <= MAX_BIGINT:
            return number
    elif key := parse_uuid(id):
        return key
    raise _not_found()


@router.get("", summary="List conversations, most recent message first", responses=problems(401, 422, 503))
async def list_conversations(
    parameters: ConversationParameters, conversations: Conversations, default_region: DefaultRegion
) -> Page[ConversationResponse]:
    """List conversations. One that receives a message while you page through the list moves to the front."""
    participant = None
    if parameters.participant is not None:
        _, participant = parse_address(parameters.participant, "participant", default_region=default_region)
    listing = ("conversations", parameters.channel, participant)
    cursor = decode_cursor(parameters.cursor, ConversationCursor, *listing)
    rows, last_messages = await conversations.list(
        parameters.channel, participant, cursor, parameters.limit + 1
    )
    show_one = partial(show_conversation, last_messages=last_messages)
    return page_of(rows, parameters, show_one, ConversationCursor.of, *listing)


@router.get("/{id}", summary="Get a conversation by its id or key", responses=problems(401, 404, 503))
async def get_conversation(
    reference: Annotated[Reference, Depends(parse_reference)], conversations: Conversations
) -> ConversationResponse:
    conversation = await conversations.get(reference)
    if conversation is None:
        raise _not_found()
    return conversation


@router.get(
    "/{id}/messages",
    summary="List the messages of a conversation, oldest first",
    responses=problems(401, 404, 422, 503),
)
async def list_conversation_messages(
    reference: Annotated[Reference, Depends(parse_reference)],
    parameters: Annotated[PageParameters, Query()],
    conversations: Conversations,
) -> Page[MessageResponse]:
    listing = ("messages", reference)
    cursor = decode_cursor(parameters.cursor, MessageCursor, *listing)
    rows = await conversations.messages(reference, cursor, parameters.limit + 1)
    if rows is None:
        raise _not_found()
    return page_of(rows, parameters, show_message, MessageCursor.of, *listing)


def _not_found() -> NotFoundError:
    return NotFoundError("conversation_not_found", "Conversation not found")
