from fastapi import Request
from starlette.requests import ClientDisconnect

from services.gateway.http.errors import ProblemError


async def read_body(request: Request) -> bytes:
    """Return the body, which is read only once.

    Raises:
        ProblemError: 400, the client has disconnected; or 413.
    """
    try:
        return await request.body()
    except ClientDisconnect as exc:
        raise ProblemError(400, "incomplete_body", "The body is incomplete") from exc
