import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import TypeAdapter, ValidationError

from services.gateway.dependencies import (
    BatchServiceDep,
    CancellationServiceDep,
    DefaultRegion,
    Messages,
    MessageServiceDep,
    Trace,
)
from services.gateway.http.auth import Caller
from services.gateway.http.deadline import deadline
from services.gateway.http.errors import InvalidRequestError, NotFoundError, Problem, problems
from services.gateway.http.fast_route import FastRoute
from services.gateway.http.limits import BodyRule
from services.gateway.http.openapi import operation_id
from services.gateway.http.pagination import Page, decode_cursor, page_of
from services.gateway.http.parameters import (
    parse_address,
    parse_conversation,
    parse_uuid,
    refuse_unknown_parameters,
)
from services.gateway.messages.batch import MAX_BATCH_BODY, Result
from services.gateway.messages.idempotency import REPLAYED_HEADER, REPLAYED_RESPONSE_HEADER, IdempotencyKey
from services.gateway.messages.responses import accepted_response
from services.gateway.messages.schemas import (
    BatchItem,
    BatchRequest,
    BatchResponse,
    EmailRequest,
    MessageFilter,
    MessageParameters,
    MessageQuery,
    MessageWithHistory,
    NewestCursor,
    ScheduledCursor,
    SmsRequest,
)
from shared.events import accepted_status
from shared.resources.messages import MessageResponse, show_message
from shared.status import Status
from shared.validation import Fault, Metadata

router = APIRouter(prefix="/api/messages", tags=["messages"])
sending_router = APIRouter(
    prefix="/api/messages",
    tags=["messages"],
    route_class=FastRoute,
    generate_unique_id_function=operation_id,
    dependencies=[Depends(refuse_unknown_parameters)],  # FastRoute sees none of those of the application
)

BODY_RULES = {"/api/messages/batch": BodyRule(max_size=MAX_BATCH_BODY)}
"""The rules for bodies that differ from the default, by path."""

_METADATA_TYPE = TypeAdapter(Metadata)
_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "description": "Texts that the metadata contains, such as `metadata[order]=17`",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}

_SEND_RESPONSES = {
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
    **problems(400, 401, "recipient_opted_out", "outcome_unknown", 413, 415, 422, 503),
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
    accepted = await sender.send(body, caller=caller, idempotency_key=idempotency_key, trace=trace)
    return accepted_response(accepted, response)


@sending_router.post("/email", summary="Send an e-mail", status_code=202, responses=_SEND_RESPONSES)
async def send_email(
    body: EmailRequest,
    caller: Caller,
    sender: MessageServiceDep,
    response: Response,
    trace: Trace,
    idempotency_key: IdempotencyKey,
) -> MessageResponse:
    accepted = await sender.send(body, caller=caller, idempotency_key=idempotency_key, trace=trace)
    return accepted_response(accepted, response)


@sending_router.post(
    "/batch",
    summary="Send up to 500 messages",
    status_code=202,
    responses={
        202: {
            "description": "Accepted and stored, except the refused messages",
            "headers": REPLAYED_RESPONSE_HEADER,
        },
        **problems(400, 401, 413, 415, 422, 503),
    },
)
async def send_batch(
    body: BatchRequest,
    caller: Caller,
    batches: BatchServiceDep,
    default_region: DefaultRegion,
    response: Response,
    trace: Trace,
    idempotency_key: IdempotencyKey,
) -> BatchResponse:
    """Send SMS, MMS and e-mails, which are all accepted at once, except those that are refused.

    A request with the same `Idempotency-Key` gets the same response.
    """
    accepted = await batches.send(
        body.messages,
        caller=caller,
        default_region=default_region,
        idempotency_key=idempotency_key,
        trace=trace,
    )
    if accepted.is_replayed:
        response.headers[REPLAYED_HEADER] = "true"
    return BatchResponse(items=list(map(_batch_item, accepted.results)))


def _batch_item(result: Result) -> BatchItem:
    if isinstance(result, Problem):
        return BatchItem(message=None, problem=result)
    message = MessageResponse.of(result.data.message, accepted_status(result))
    return BatchItem(message=message, problem=None)


async def _metadata(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the keys and the values of parameters such as `metadata[order]=17`.

    Raises:
        InvalidRequestError: no metadata can contain them.
    """
    names = [name for name in request.query_params if name.partition("[")[0] == "metadata"]
    matches = [_METADATA.fullmatch(name) for name in names]
    if not all(matches):
        raise InvalidRequestError(Fault("metadata", "must name a key, such as `metadata[order]=17`"))
    try:
        pairs = _METADATA_TYPE.validate_python(
            {match[1]: request.query_params[match[0]] for match in matches if match}
        )
    except ValidationError as exc:
        raise InvalidRequestError(Fault("metadata", "is not metadata that a message may have")) from exc
    return tuple(sorted(pairs.items()))


@router.get(
    "",
    summary="List messages, newest first",
    responses=problems(401, 422, 503),
    openapi_extra={"parameters": [_METADATA_PARAMETER]},
)
async def list_messages(
    parameters: MessageParameters,
    metadata: Annotated[tuple[tuple[str, str], ...], Depends(_metadata)],
    messages: Messages,
    default_region: DefaultRegion,
) -> Page[MessageResponse]:
    """List the messages that meet all conditions.

    With several conditions, a page may have fewer items than `limit`, or none, although there are more:
    continue until `next_cursor` is null. With `status=scheduled`, the soonest message comes first, and an
    overdue one is listed until it expires.
    """
    selected = _selected(parameters, metadata, default_region)
    if selected.status is Status.SCHEDULED:
        return await _list_scheduled(parameters, selected, messages)
    listing = ("messages", selected)
    cursor = decode_cursor(parameters.cursor, NewestCursor, *listing)
    page = await messages.newest(selected, cursor, parameters.limit + 1)
    return page_of(page.rows, parameters, show_message, NewestCursor.of, *listing, end=page.end)


async def _list_scheduled(
    parameters: MessageQuery, selected: MessageFilter, messages: Messages
) -> Page[MessageResponse]:
    listing = ("scheduled", selected)
    cursor = decode_cursor(parameters.cursor, ScheduledCursor, *listing)
    page = await messages.scheduled(selected, cursor, parameters.limit + 1)
    return page_of(page.rows, parameters, show_message, ScheduledCursor.of, *listing, end=page.end)


def _selected(
    parameters: MessageQuery, metadata: tuple[tuple[str, str], ...], default_region: str
) -> MessageFilter:
    given = parameters.model_dump(exclude={"limit", "cursor"}, exclude_none=True)
    if parameters.address is not None:
        _, given["address"] = parse_address(parameters.address, "address", default_region=default_region)
    if parameters.conversation is not None:
        given["conversation"] = parse_conversation(parameters.conversation)
        if given["conversation"] is None:
            raise InvalidRequestError(Fault("conversation", "is neither an id nor a key of a conversation"))
    return MessageFilter(**given, metadata=metadata)


async def _find(id: str, messages: Messages) -> MessageWithHistory:  # noqa: A002 - the name in the path
    id_ = parse_uuid(id)
    message = id_ and await messages.get(id_)
    if not message:
        raise NotFoundError("message_not_found", "Message not found")
    return message


@router.get(
    "/{id}", summary="Get a message with its history", responses=problems(401, "message_not_found", 422, 503)
)
async def get_message(message: Annotated[MessageWithHistory, Depends(_find)]) -> MessageWithHistory:
    return message


@router.delete(
    "/{id}",
    summary="Cancel a message",
    responses=problems(401, "message_not_found", "not_cancelable", "outcome_unknown", 422, 503),
)
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
