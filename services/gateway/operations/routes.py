from fastapi import APIRouter

from services.gateway.dependencies import Clock, Operations, TrafficQueriesDep
from services.gateway.http.errors import problems
from services.gateway.operations.schemas import OperationsResponse, TrafficResponse

router = APIRouter(prefix="/api/operations", tags=["operations"])


@router.get("", summary="Get the state of consumers and providers", responses=problems(401, 422, 503))
async def get_operations(operations: Operations) -> OperationsResponse:
    """Return the backlog of every consumer, and the providers and limits of the running senders."""
    return await operations.get()


@router.get("/traffic", summary="Get the messages of the last hour", responses=problems(401, 422, 503))
async def get_traffic(traffic: TrafficQueriesDep, clock: Clock) -> TrafficResponse:
    """Return the number of messages in each minute of the last hour, by channel, provider and kind."""
    return await traffic.last_hour(clock())
