"""Breaking a connection from inside an ASGI application, which ASGI has no message for."""

import asyncio
from contextlib import suppress

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mock_providers.behaviour import Behaviour

SHUTDOWN_GRACE = 0.25
"""Seconds that open requests get to end once the server stops; then their connections break."""


class BreakableProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also hands each request its transport, in the ASGI `state`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(SHUTDOWN_GRACE, self.transport.abort)


async def linger(request: Request, behaviour: Behaviour) -> None:
    """Return when the answer is due, or when nobody is left to get it. The body must have been read."""
    if behaviour.latency_ms:
        await client_gone(request, within=behaviour.latency_ms / 1000)
    if behaviour.hang:
        await client_gone(request)
    elif behaviour.breaks:
        await break_connection(request)


async def break_connection(request: Request) -> None:
    """Close the request's connection at once. uvicorn throws away what is answered after that."""
    request.state.transport.abort()
    await client_gone(request)


async def client_gone(request: Request, within: float | None = None) -> None:
    """Wait until the connection is closed, or for so many seconds. The body must have been read."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while (await request.receive())["type"] != "http.disconnect":
                pass
