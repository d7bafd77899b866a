from typing import Literal

from fastapi import APIRouter, Request, Response

from services.gateway.http import pagination
from services.gateway.http.auth import client_of
from services.gateway.http.body import read_model
from services.gateway.http.errors import NotFoundError
from services.gateway.messages.idempotency import HEADER, parse_key
from services.gateway.messages.service import Caller, trace_headers
from services.gateway.openapi import ACCEPTED, IDEMPOTENCY_KEY, problems, takes
from services.gateway.http.pagination import ScheduledCursor
from services.gateway.http.parameters import DEFAULT_LIMIT, CursorText, Limit, as_uuid
from services.gateway.schemas import EmailSend, Send, SmsSend
from services.gateway.state import state_of
from services.gateway.views import MessageView, MessageWithHistory, Page, answer
from shared.channels import Channel
from shared.lifecycle import Status

router = APIRouter(tags=["messages"])

_SEND_PROBLEMS = problems(400, 401, 409, 413, 415, 422, 503)


@router.post(
    "/api/messages/sms",
    summary="Send an SMS or MMS",
    status_code=202,
    response_model=MessageView,
    responses={202: ACCEPTED, **_SEND_PROBLEMS},
    openapi_extra=takes(SmsSend, IDEMPOTENCY_KEY),
)
async def send_sms(request: Request) -> Response:
    return await _send(request, SmsSend)


@router.post(
    "/api/messages/email",
    summary="Send an e-mail",
    status_code=202,
    response_model=MessageView,
    responses={202: ACCEPTED, **_SEND_PROBLEMS},
    openapi_extra=takes(EmailSend, IDEMPOTENCY_KEY),
)
async def send_email(request: Request) -> Response:
    return await _send(request, EmailSend)


async def _send(request: Request, model: type[Send]) -> Response:
    state = state_of(request)
    send = await read_model(request, model, default_region=state.default_region)
    caller = Caller(
        name=client_of(request),
        idempotency_key=parse_key(request.headers.getlist(HEADER)),
        trace=trace_headers(request.headers),
    )
    accepted = await state.intake.send(send, caller)
    view = MessageView.of(accepted.data.message, accepted.status)
    return answer(view, 202, Location=f"/api/messages/{view.id}")


@router.get(
    "/api/messages",
    summary="Messages that wait for their time, the next one first",
    response_model=Page[MessageView],
    responses=problems(401, 422, 503),
)
async def list_messages(
    request: Request,
    status: Literal[Status.SCHEDULED],
    channel: Channel | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    """An overdue one is listed until it expires."""
    start = paging.decode(cursor, ScheduledCursor, "messages", status, channel)
    found = await state_of(request).archive.scheduled(channel, start, limit)
    next_cursor = found.end and paging.encode(found.end, "messages", status, channel)
    return answer(Page[MessageView](items=found.items, next_cursor=next_cursor))


@router.get(
    "/api/messages/{id}",
    summary="A message, and what became of it",
    response_model=MessageWithHistory,
    responses=problems(401, 404, 503),
)
async def get_message(request: Request, id: str) -> Response:  # noqa: A002 - the name in the path
    return answer(await _find(request, id))


@router.delete(
    "/api/messages/{id}",
    summary="Cancel a message",
    response_model=MessageView,
    responses=problems(401, 404, 409, 503),
)
async def cancel_message(request: Request, id: str) -> Response:  # noqa: A002
    """Possible while it waits, be it for its time or for another attempt after the provider refused one.

    Done again it has the same answer. Once an attempt has begun whose outcome is not known, it is too late.
    """
    message = await _find(request, id)
    return answer(await state_of(request).canceler.cancel(message))


async def _find(request: Request, text: str) -> MessageWithHistory:
    id_ = as_uuid(text)
    message = id_ and await state_of(request).archive.message(id_)
    if not message:
        raise NotFoundError("message")
    return message
