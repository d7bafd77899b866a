"""Serving applications inside a running event loop, for `__main__` and for tests."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from mock_providers.connections import BreakableProtocol


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not handle signals: the process does, as it runs more than one server."""
        yield


def _server(app: FastAPI) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=BreakableProtocol,
            ws="none",
            lifespan="on",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            log_level="warning",
            # Longer than clients keep idle connections open, so that the client closes them and never finds
            # one closed that it was about to use.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is already listening; port 0 picks a free port. Raises OSError."""
    listener = socket.create_server((host, port), backlog=2048)
    # Connections inherit the option. asyncio does not set it on them, because their protocol number is 0
    # and not IPPROTO_TCP, and each response would then be delayed by about 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


@asynccontextmanager
async def serving(apps: Mapping[socket.socket, FastAPI]) -> AsyncIterator[None]:
    """Serve each application on its listener. Leaving the context takes two seconds at most."""
    servers = {listener: _server(app) for listener, app in apps.items()}
    tasks = [asyncio.create_task(server.serve(sockets=[listener])) for listener, server in servers.items()]
    try:
        yield
    finally:
        for server in servers.values():
            server.should_exit = True
        await asyncio.gather(*tasks)
