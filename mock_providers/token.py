"""The token that protects the controls: anybody who can use them can have the mocks sign webhooks."""

from secrets import compare_digest

from fastapi import status
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send


class ControlToken:
    """Middleware that refuses requests under `/mock` without the bearer token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/mock") and not self._is_allowed(scope):
            refusal = JSONResponse({"error": "unauthorized"}, status.HTTP_401_UNAUTHORIZED)
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "")
        return compare_digest(given.encode(), self._expected)
