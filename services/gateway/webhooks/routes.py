from fastapi import APIRouter, Request, Response
from pydantic_core import PydanticSerializationError, to_json

from services.gateway.http.body import Model, read_json, validate
from services.gateway.http.errors import Fault, InvalidRequestError
from services.gateway.messages.service import trace_headers
from services.gateway.openapi import problems, takes
from services.gateway.schemas import EmailReceipt, EmailWebhook, Receipt, SmsReceipt, SmsWebhook, Webhook
from services.gateway.state import state_of
from services.gateway.views import Received, answer
from shared.lifecycle import Status

router = APIRouter(tags=["webhooks"])

_PROBLEMS = problems(400, 401, 413, 415, 422, 503)


@router.post(
    "/api/webhooks/sms",
    summary="An SMS or MMS that somebody sent us",
    response_model=Received,
    responses=_PROBLEMS,
    openapi_extra=takes(SmsWebhook),
)
async def receive_sms(request: Request) -> Response:
    return await _receive(request, SmsWebhook)


@router.post(
    "/api/webhooks/email",
    summary="An e-mail that somebody sent us",
    response_model=Received,
    responses=_PROBLEMS,
    openapi_extra=takes(EmailWebhook),
)
async def receive_email(request: Request) -> Response:
    return await _receive(request, EmailWebhook)


@router.post(
    "/api/webhooks/sms/status",
    summary="What became of an SMS or MMS",
    response_model=Received,
    responses=_PROBLEMS,
    openapi_extra=takes(SmsReceipt),
)
async def report_sms(request: Request) -> Response:
    return await _report(request, SmsReceipt)


@router.post(
    "/api/webhooks/email/status",
    summary="What became of an e-mail",
    response_model=Received,
    responses=_PROBLEMS,
    openapi_extra=takes(EmailReceipt),
)
async def report_email(request: Request) -> Response:
    return await _report(request, EmailReceipt)


async def _receive(request: Request, model: type[Webhook]) -> Response:
    raw, webhook = await _read(request, model)
    message = await state_of(request).intake.receive(webhook, raw, trace_headers(request.headers))
    return answer(Received(id=message.id, status=Status.RECEIVED))


async def _report(request: Request, model: type[Receipt]) -> Response:
    raw, receipt = await _read(request, model)
    event = await state_of(request).intake.report(receipt, raw, trace_headers(request.headers))
    return answer(Received(id=event.id, status=event.data.status))


async def _read(request: Request, model: type[Model]) -> tuple[object, Model]:
    raw = await read_json(request)
    webhook = validate(raw, model, default_region=state_of(request).default_region)
    try:
        to_json(raw)
    except PydanticSerializationError as exc:
        # In a field that the model does not look at.
        raise InvalidRequestError(Fault("body", "contains lone surrogates")) from exc
    return raw, webhook
