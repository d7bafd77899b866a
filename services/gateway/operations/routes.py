from fastapi import APIRouter

from services.gateway.dependencies import Operations
from services.gateway.http.errors import problems
from services.gateway.operations.schemas import OperationsResponse

router = APIRouter(prefix="/api/operations", tags=["operations"])


@router.get("", summary="Get the state of consumers and providers", responses=problems(401, 503))
async def get_operations(operations: Operations) -> OperationsResponse:
    """Return the backlog of every consumer, and the state of every provider in the running senders."""
    return await operations.get()
