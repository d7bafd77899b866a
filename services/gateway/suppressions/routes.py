from collections.abc import Collection

from fastapi import APIRouter, Response

from services.gateway.dependencies import Clock, DefaultRegion, SuppressionListDep, Suppressions
from services.gateway.http.auth import AuthenticatedRoute, Caller
from services.gateway.http.deadline import deadline
from services.gateway.http.errors import InvalidRequestError, problems
from services.gateway.http.pagination import Page, decode_cursor, page_of
from services.gateway.http.parameters import AddressPath, parse_address
from services.gateway.suppressions.schemas import (
    SenderQuery,
    SuppressionCursor,
    SuppressionParameters,
    SuppressRequest,
)
from shared.channels import Channel
from shared.phone_numbers import is_sender_id_key
from shared.resources.suppressions import SuppressionResponse, show_suppression
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from shared.validation import NO_RECIPIENT, Fault

router = APIRouter(prefix="/api/suppressions", tags=["suppressions"], route_class=AuthenticatedRoute)


@router.get("", summary="List suppressed addresses, most recent first", responses=problems(401, 422, 503))
async def list_suppressions(
    parameters: SuppressionParameters, suppressions: Suppressions, default_region: DefaultRegion
) -> Page[SuppressionResponse]:
    address = None
    if parameters.address is not None:
        _, address = parse_address(parameters.address, "address", default_region=default_region)
    listing = ("suppressions", parameters.channel, address)
    cursor = decode_cursor(parameters.cursor, SuppressionCursor, *listing)
    rows = await suppressions.list(parameters.channel, address, cursor, parameters.limit + 1)
    return page_of(rows, parameters, show_suppression, SuppressionCursor.of, *listing)


@router.put("/{address}", summary="Suppress an address", responses=problems(400, 401, 413, 415, 422, 503))
async def suppress_address(
    body: SuppressRequest,
    address: AddressPath,
    suppressions: SuppressionListDep,
    caller: Caller,
    clock: Clock,
    default_region: DefaultRegion,
    sender: SenderQuery = None,
) -> SuppressionResponse:
    """Stop messages to an address, from one sender address or from all of them.

    An existing opt-out from the same senders is left unchanged.
    """
    channel, theirs, ours = _pair(address, sender, default_region, suppressions.groups.values())
    if channel is Channel.SMS and is_sender_id_key(theirs):
        raise InvalidRequestError(Fault("address", NO_RECIPIENT))
    change = SuppressionChange(
        channel=channel,
        ours=ours,
        theirs=theirs,
        state=SuppressionState.OPTED_OUT,
        source=SuppressionSource.API,
        detail=body.reason,
        by=caller,
        occurred_at=clock(),
    )
    async with deadline():
        return SuppressionResponse.of(await suppressions.record(change, only_if_changed=True))


@router.delete(
    "/{address}",
    summary="Lift a suppression",
    status_code=204,
    response_class=Response,
    responses=problems(401, 422, 503),
)
async def lift_suppression(
    address: AddressPath,
    suppressions: SuppressionListDep,
    caller: Caller,
    clock: Clock,
    default_region: DefaultRegion,
    sender: SenderQuery = None,
) -> None:
    """Lift the suppression for one sender address, or the one for all of them. Neither lifts the other."""
    channel, theirs, ours = _pair(address, sender, default_region, suppressions.groups.values())
    change = SuppressionChange(
        channel=channel,
        ours=ours,
        theirs=theirs,
        state=SuppressionState.OPTED_IN,
        source=SuppressionSource.API,
        by=caller,
        occurred_at=clock(),
    )
    async with deadline():
        await suppressions.record(change, only_if_changed=True)


def _pair(
    address: str, sender: str | None, default_region: str, groups: Collection[str]
) -> tuple[Channel, str, str | None]:
    """Return the channel, and the keys of the recipient's and the sender's address, or the opt-out group."""
    channel, theirs = parse_address(address, "address", default_region=default_region)
    if sender is None or sender in groups:
        return channel, theirs, sender
    channel_of_sender, ours = parse_address(sender, "sender", default_region=default_region)
    if channel_of_sender is not channel:
        raise InvalidRequestError(Fault("sender", "is not an address of the same channel"))
    return channel, theirs, ours
