from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from services.gateway.conversations.replies import as_send_request
from services.gateway.conversations.schemas import (
    ConversationCursor,
    ConversationFilter,
    ConversationParameters,
)
from services.gateway.dependencies import Conversations, DefaultRegion, MessageServiceDep, Trace
from services.gateway.http.auth import Caller
from services.gateway.http.errors import NotFoundError, problems
from services.gateway.http.fast_route import FastRoute
from services.gateway.http.openapi import operation_id
from services.gateway.http.pagination import Page, PageParameters, decode_cursor, page_of
from services.gateway.http.parameters import (
    ConversationReference,
    parse_address,
    parse_conversation,
    refuse_unknown_parameters,
)
from services.gateway.messages.idempotency import REPLAYED_RESPONSE_HEADER, IdempotencyKey, fingerprint
from services.gateway.messages.responses import accepted_response
from services.gateway.messages.schemas import MessageCursor, ReplyRequest
from shared.resources.conversations import ConversationResponse, show_conversation
from shared.resources.messages import MessageResponse, show_message

router = APIRouter(prefix="/api/conversations", tags=["conversations"])
replying_router = APIRouter(
    prefix="/api/conversations",
    tags=["conversations"],
    route_class=FastRoute,
    generate_unique_id_function=operation_id,
    dependencies=[Depends(refuse_unknown_parameters)],
)


async def parse_reference(id: str) -> ConversationReference:  # noqa: A002 - the name in the path
    """Return the id or the key of a conversation in a path.

    Raises:
        NotFoundError: the text is neither of them.
    """
    if reference := parse_conversation(id):
        return reference
    raise _not_found()


@router.get("", summary="List conversations, most recent message first", responses=problems(401, 422, 503))
async def list_conversations(
    parameters: ConversationParameters, conversations: Conversations, default_region: DefaultRegion
) -> Page[ConversationResponse]:
    """List conversations. One that receives a message while you page through the list moves to the front."""
    participant = None
    if parameters.participant is not None:
        _, participant = parse_address(parameters.participant, "participant", default_region=default_region)
    selected = ConversationFilter(parameters.channel, participant, parameters.updated_since)
    listing = ("conversations", selected)
    cursor = decode_cursor(parameters.cursor, ConversationCursor, *listing)
    rows, last_messages = await conversations.list(selected, cursor, parameters.limit + 1)
    show_one = partial(show_conversation, last_messages=last_messages)
    return page_of(rows, parameters, show_one, ConversationCursor.of, *listing)


@router.get(
    "/{id}",
    summary="Get a conversation by its id or key",
    responses=problems(401, "conversation_not_found", 422, 503),
)
async def get_conversation(
    reference: Annotated[ConversationReference, Depends(parse_reference)], conversations: Conversations
) -> ConversationResponse:
    conversation = await conversations.get(reference)
    if conversation is None:
        raise _not_found()
    return conversation


@router.get(
    "/{id}/messages",
    summary="List the messages of a conversation, oldest first",
    responses=problems(401, "conversation_not_found", 422, 503),
)
async def list_conversation_messages(
    reference: Annotated[ConversationReference, Depends(parse_reference)],
    parameters: Annotated[PageParameters, Query()],
    conversations: Conversations,
) -> Page[MessageResponse]:
    listing = ("messages", reference)
    cursor = decode_cursor(parameters.cursor, MessageCursor, *listing)
    rows = await conversations.messages(reference, cursor, parameters.limit + 1)
    if rows is None:
        raise _not_found()
    return page_of(rows, parameters, show_message, MessageCursor.of, *listing)


@replying_router.post(
    "/{id}/messages",
    summary="Reply in a conversation",
    status_code=202,
    responses={
        202: {
            "description": "Accepted and stored",
            "headers": {
                "Location": {
                    "description": "URL of the message",
                    "schema": {"type": "string", "format": "uri-reference"},
                },
                **REPLAYED_RESPONSE_HEADER,
            },
        },
        **problems(
            400,
            401,
            "conversation_not_found",
            "recipient_opted_out",
            "outcome_unknown",
            413,
            415,
            422,
            503,
        ),
    },
)
async def reply_to_conversation(  # noqa: PLR0913 - dependencies
    *,
    body: ReplyRequest,
    reference: Annotated[ConversationReference, Depends(parse_reference)],
    caller: Caller,
    conversations: Conversations,
    sender: MessageServiceDep,
    default_region: DefaultRegion,
    response: Response,
    trace: Trace,
    idempotency_key: IdempotencyKey,
) -> MessageResponse:
    """Send a message from our address in a conversation to the other participant."""
    conversation = await conversations.get(reference)
    if conversation is None or conversation.last_message is None:
        raise _not_found()
    request = as_send_request(body, conversation.last_message, default_region)
    # The addresses may be spelt differently in a message that arrives before the request is repeated.
    digest = f"{conversation.key} {fingerprint(body)}"
    accepted = await sender.send(
        request, caller=caller, idempotency_key=idempotency_key, trace=trace, digest=digest
    )
    return accepted_response(accepted, response)


def _not_found() -> NotFoundError:
    return NotFoundError("conversation_not_found", "Conversation not found")
