"""Delaying a response and closing a connection from inside an ASGI application."""

import asyncio
from contextlib import suppress

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mock_providers.behaviour import Behaviour

SHUTDOWN_GRACE = 0.25
"""Seconds that open requests have to finish when the server stops; then their connections are closed."""


class BreakableProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also passes its transport to each request, in the ASGI `state`.

    ASGI has no message that closes a connection, so the application has to reach the transport itself.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(SHUTDOWN_GRACE, self.transport.abort)


async def delay_response(request: Request, behaviour: Behaviour) -> None:
    """Return when the response is due, or when the client is gone. The body must have been read."""
    if behaviour.latency_ms:
        await _client_gone(request, within=behaviour.latency_ms / 1000)
    if behaviour.hang:
        await _client_gone(request)
    elif behaviour.breaks_connection:
        # uvicorn discards a response to a connection that is closed.
        request.state.transport.abort()
        await _client_gone(request)


async def _client_gone(request: Request, within: float | None = None) -> None:
    """Wait until the connection is closed, or for `within` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while (await request.receive())["type"] != "http.disconnect":
                pass
