from typing import Annotated

from fastapi import APIRouter, Depends, Response

from services.gateway.dependencies import CancellationServiceDep, Messages, MessageServiceDep, Trace
from services.gateway.http.auth import Caller
from services.gateway.http.deadline import deadline
from services.gateway.http.errors import NotFoundError, problems
from services.gateway.http.fast_route import FastRoute
from services.gateway.http.pagination import Page, decode_cursor, page_of
from services.gateway.http.parameters import parse_uuid
from services.gateway.messages.idempotency import IdempotencyKey
from services.gateway.messages.schemas import (
    EmailRequest,
    MessageWithHistory,
    ScheduledCursor,
    ScheduledParameters,
    SmsRequest,
)
from shared.events import accepted_status
from shared.resources.messages import MessageResponse, show_message

router = APIRouter(prefix="/api/messages", tags=["messages"])
sending_router = APIRouter(prefix="/api/messages", tags=["messages"], route_class=FastRoute)

_SEND_RESPONSES = {
    202: {
        "description": "Accepted and stored",
        "headers": {"Location": {"description": "URL of the message", "schema": {"type": "string"}}},
    },
    **problems(400, 401, 409, 413, 415, 422, 503),
}


@sending_router.post("/sms", summary="Send an SMS or MMS", status_code=202, responses=_SEND_RESPONSES)
async def send_sms(
    body: SmsRequest,
    caller: Caller,
    sender: MessageServiceDep,
    response: Response,
    trace: Trace,
    idempotency_key: IdempotencyKey,
) -> MessageResponse:
    event = await sender.send(body, caller=caller, idempotency_key=idempotency_key, trace=trace)
    response.headers["Location"] = f"/api/messages/{event.data.message.id}"
    return MessageResponse.of(event.data.message, accepted_status(event))


@sending_router.post("/email", summary="Send an e-mail", status_code=202, responses=_SEND_RESPONSES)
async def send_email(
    body: EmailRequest,
    caller: Caller,
    sender: MessageServiceDep,
    response: Response,
    trace: Trace,
    idempotency_key: IdempotencyKey,
) -> MessageResponse:
    event = await sender.send(body, caller=caller, idempotency_key=idempotency_key, trace=trace)
    response.headers["Location"] = f"/api/messages/{event.data.message.id}"
    return MessageResponse.of(event.data.message, accepted_status(event))


@router.get("", summary="List scheduled messages, soonest first", responses=problems(401, 422, 503))
async def list_messages(parameters: ScheduledParameters, messages: Messages) -> Page[MessageResponse]:
    """An overdue message is listed until it expires."""
    listing = ("messages", parameters.status, parameters.channel)
    cursor = decode_cursor(parameters.cursor, ScheduledCursor, *listing)
    rows = await messages.scheduled(parameters.channel, cursor, parameters.limit + 1)
    return page_of(rows, parameters, show_message, ScheduledCursor.of, *listing)


async def _find(id: str, messages: Messages) -> MessageWithHistory:  # noqa: A002 - the name in the path
    id_ = parse_uuid(id)
    message = id_ and await messages.get(id_)
    if not message:
        raise NotFoundError("message_not_found", "Message not found")
    return message


@router.get("/{id}", summary="Get a message with its history", responses=problems(401, 404, 503))
async def get_message(message: Annotated[MessageWithHistory, Depends(_find)]) -> MessageWithHistory:
    return message


@router.delete("/{id}", summary="Cancel a message", responses=problems(401, 404, 409, 503))
async def cancel_message(
    id: str,  # noqa: A002 - the name in the path
    messages: Messages,
    cancellation_service: CancellationServiceDep,
) -> MessageResponse:
    """Cancel a message that is scheduled, or that waits for another attempt after the provider refused one.

    Cancelling a message again returns the same response. A message cannot be cancelled while it is being
    sent, or after an attempt whose outcome is unknown.
    """
    async with deadline():
        return await cancellation_service.cancel(await _find(id, messages))
