from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from services.gateway.dependencies import DefaultRegion, Events
from services.gateway.events.feed import EventLog
from services.gateway.events.schemas import EventPage, EventParameters, EventQuery
from services.gateway.events.streaming import EventStream
from services.gateway.http.auth import Caller
from services.gateway.http.errors import InvalidRequestError, ProblemError, problems
from services.gateway.http.parameters import parse_address
from shared.bus.streams import Bounds
from shared.notifications import NotificationFilter
from shared.validation import Fault

router = APIRouter(prefix="/api/events", tags=["events"])

_MAX_DIGITS = 18

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page, or a stream if the request accepts `text/event-stream`",
        "headers": {
            "Last-Event-ID": {
                "description": "For a stream: the position after which it begins",
                "schema": {"type": "string"},
            }
        },
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "string",
                    "description": "Events with the fields `id` (the sequence), `event` (the type) and "
                    "`data` (an item of a page, as JSON)",
                }
            }
        },
    },
    **problems(401, "events_expired", 422, "too_many_streams", 503),
}

LastEventId = Annotated[
    str | None,
    Header(description="Instead of `after`, for streams: the `id` of the last event that was received"),
]


@router.get(
    "", summary="List events, oldest first, or stream them", responses=_RESPONSES, response_model=EventPage
)
async def list_events(
    request: Request,
    parameters: EventParameters,
    caller: Caller,
    events: Events,
    default_region: DefaultRegion,
    last_event_id: LastEventId = None,
) -> EventPage | Response:
    """List what happened: messages and their statuses, opt-outs and dead letters.

    Events are stored for seven days. Each has a `sequence`; continue with the events after the last one that
    you received. If those are no longer stored, the response is a 410.

    With `Accept: text/event-stream`, the response is a stream that never ends (server-sent events). If
    the connection is lost, resume it with the header `Last-Event-ID`, as browsers do. While nothing
    happens, a comment is sent every 15 seconds.
    """
    selected = _selected(parameters, default_region)
    bounds = await events.log.bounds()
    if "text/event-stream" not in request.headers.get("accept", ""):
        after = _position(parameters.after, bounds, default=bounds.first - 1)
        return await _page(events.log, after, selected, parameters.limit)
    given = parameters.after if last_event_id is None else _parse_sequence(last_event_id)
    after = _position(given, bounds, default=bounds.last)
    return EventStream(events.feed, after, selected, events.limit.opened(caller))


def _selected(parameters: EventQuery, default_region: str) -> NotificationFilter:
    channels = () if parameters.channel is None else (parameters.channel,)
    addresses: tuple[str, ...] = ()
    if parameters.address is not None:
        _, key = parse_address(parameters.address, "address", default_region=default_region)
        addresses = (key,)
    return NotificationFilter(tuple(parameters.type), channels, addresses)


def _parse_sequence(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise InvalidRequestError(Fault("Last-Event-ID", "is not the id of an event"))
    return int(text)


def _position(after: int | None, bounds: Bounds, *, default: int) -> int:
    """Return the sequence to continue after.

    Raises:
        ProblemError: 410, events after it are missing.
    """
    if after is None:
        return default
    if after < bounds.first - 1:
        detail = (
            f"Events after {after} are no longer stored. The oldest event is the one after {bounds.first - 1}"
        )
        raise ProblemError(410, "events_expired", detail)
    if after > bounds.last:
        detail = (
            f"There is no event {after}; the newest is {bounds.last}. The stored events were lost or restored"
        )
        raise ProblemError(410, "events_expired", detail)
    return after


async def _page(log: EventLog, after: int, selected: NotificationFilter, limit: int) -> EventPage:
    found, position, has_more = await log.read(after, selected, limit)
    return EventPage(items=[event for _, event in found], next_cursor=str(position), has_more=has_more)
