from fastapi import APIRouter, Request, Response

from services.gateway.auth import client_of
from services.gateway.body import read_model
from services.gateway.errors import NotFoundError
from services.gateway.idempotency import HEADER, parse_key
from services.gateway.intake import Caller, trace_headers
from services.gateway.openapi import ACCEPTED, IDEMPOTENCY_KEY, problems, takes
from services.gateway.parameters import as_uuid
from services.gateway.schemas import EmailSend, Send, SmsSend
from services.gateway.state import state_of
from services.gateway.views import MessageView, MessageWithHistory, answer
from shared.status import Status

router = APIRouter(tags=["messages"])

_SEND_PROBLEMS = problems(400, 401, 413, 415, 422, 503)


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
    message = await state.intake.send(send, caller)
    view = MessageView.of(message, Status.ACCEPTED)
    return answer(view, 202, Location=f"/api/messages/{message.id}")


@router.get(
    "/api/messages/{id}",
    summary="A message, and what became of it",
    response_model=MessageWithHistory,
    responses=problems(401, 404, 503),
)
async def get_message(request: Request, id: str) -> Response:  # noqa: A002 - the name in the path
    message_id = as_uuid(id)
    message = message_id and await state_of(request).archive.message(message_id)
    if not message:
        raise NotFoundError("message")
    return answer(message)
