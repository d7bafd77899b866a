"""Serving applications inside a running event loop: for `__main__`, and for tests."""

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
        """Leave the signals alone: they are the process's affair, and it has more than one server."""
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
            # Longer than clients keep idle connections, so that it is the client that closes them.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that already listens; port 0 is any free one. Raises OSError."""
    listener = socket.create_server((host, port), backlog=2048)
    # Connections inherit it. asyncio would not set it on them, as their protocol number is 0 and
    # not IPPROTO_TCP, and each answer would then wait some 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


@asynccontextmanager
async def serving(apps: Mapping[socket.socket, FastAPI]) -> AsyncIterator[None]:
    """Serve each application on its listener while inside. Leaving takes two seconds at most."""
    servers = {listener: _server(app) for listener, app in apps.items()}
    tasks = [asyncio.create_task(server.serve(sockets=[listener])) for listener, server in servers.items()]
    try:
        yield
    finally:
        for server in servers.values():
            server.should_exit = True
        await asyncio.gather(*tasks)
