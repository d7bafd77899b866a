from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from services.gateway.http import pagination
from services.gateway.http.auth import client_of
from services.gateway.http.body import read_model
from services.gateway.http.errors import Fault, InvalidRequestError
from services.gateway.openapi import problems, takes
from services.gateway.http.pagination import SuppressionCursor
from services.gateway.http.parameters import DEFAULT_LIMIT, CursorText, Limit, ParticipantText, as_address
from services.gateway.http.deadline import patience
from services.gateway.queries import SuppressionFilter
from services.gateway.schemas import Suppress
from services.gateway.state import state_of
from services.gateway.views import Page, SuppressionView, answer
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel
from shared.events import SuppressionChange, SuppressionSource, SuppressionState

router = APIRouter(prefix="/api/suppressions", tags=["suppressions"])

AddressText = Annotated[
    str,
    Path(
        max_length=MAX_ADDRESS_LENGTH,
        description="A phone number or an e-mail address",
        json_schema_extra={"format": "participant"},
        examples=["+18045551234"],
    ),
]
SenderText = Annotated[
    str | None,
    Query(
        max_length=MAX_ADDRESS_LENGTH,
        description="An address of ours; all of them, if left out",
        json_schema_extra={"format": "participant"},
        examples=["+12016661234"],
    ),
]


@router.get(
    "",
    summary="Who has opted out, the latest first",
    response_model=Page[SuppressionView],
    responses=problems(401, 422, 503),
)
async def list_suppressions(
    request: Request,
    channel: Channel | None = None,
    address: ParticipantText = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    state = state_of(request)
    theirs = address and as_address(address, "address", default_region=state.default_region)[1]
    wanted = SuppressionFilter(channel, theirs)
    start = paging.decode(cursor, SuppressionCursor, "suppressions", wanted)
    found = await state.archive.suppressions(wanted, start, limit)
    next_cursor = found.end and paging.encode(found.end, "suppressions", wanted)
    return answer(Page[SuppressionView](items=found.items, next_cursor=next_cursor))


@router.put(
    "/{address}",
    summary="Send somebody nothing more",
    response_model=SuppressionView,
    responses=problems(400, 401, 413, 415, 422, 503),
    openapi_extra=takes(Suppress),
)
async def suppress(request: Request, address: AddressText, sender: SenderText = None) -> Response:
    """From one address of ours, or from all. Who has opted out of that already stays as they are."""
    wanted = await read_model(request, Suppress, default_region=state_of(request).default_region)
    change = _change(request, address, sender, SuppressionState.OPTED_OUT, wanted.reason)
    async with patience():
        holds = await state_of(request).suppressions.record(change, unless_so=True)
    return answer(SuppressionView.of(holds or change))


@router.delete(
    "/{address}",
    summary="Send to somebody again",
    status_code=204,
    responses=problems(401, 422, 503),
)
async def lift(request: Request, address: AddressText, sender: SenderText = None) -> Response:
    """Takes back what was asked of one address of ours, or of all: not the one with the other."""
    change = _change(request, address, sender, SuppressionState.OPTED_IN, None)
    async with patience():
        await state_of(request).suppressions.record(change, unless_so=True)
    return Response(status_code=204)


def _change(
    request: Request, address: str, sender: str | None, wanted: SuppressionState, reason: str | None
) -> SuppressionChange:
    state = state_of(request)
    channel, theirs = as_address(address, "address", default_region=state.default_region)
    ours = None
    if sender is not None:
        channel_of_sender, ours = as_address(sender, "sender", default_region=state.default_region)
        if channel_of_sender is not channel:
            raise InvalidRequestError(Fault("sender", "is no address of the same channel"))
    return SuppressionChange(
        channel=channel,
        ours=ours,
        theirs=theirs,
        state=wanted,
        source=SuppressionSource.API,
        detail=reason,
        by=client_of(request),
        occurred_at=state.clock(),
    )
