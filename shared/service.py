"""Code that every service needs: health endpoints, and a server that stops on a signal."""

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared import supervision
from shared.http_admission import Admission
from shared.http_server import MAX_CONNECTIONS, config_of, raise_descriptor_limit
from shared.observability.metrics import READY
from shared.supervision import Supervisor

_TICKS_PER_SECOND = 10
"""How often uvicorn calls `on_tick`."""

_SCRAPE_INTERVAL = 0.5
"""Seconds. Metrics are not collected more often, because each time takes several milliseconds."""

_ACCEPTED_AT_ONCE = 8
"""How many connections are accepted in each iteration of the event loop. uvloop accepts only one for each
descriptor, so that under load, new connections would have to wait for seconds."""

ReadinessCheck = Callable[[], Awaitable[str | None]]
"""Returns the reason why the service is not ready, or None if it is ready."""

ReadinessNotes = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the state of dependencies that the service can work without, by name."""


def _responses(ok: str, failed: str, description: str, reason: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the responses of a health check."""

    def example(**content: str) -> dict[str, Any]:
        return {"application/json": {"example": content}}

    return {
        200: {"content": example(status=ok)},
        503: {
            "description": description,
            "model": dict[str, str],
            "content": example(status=failed, reason=reason),
        },
    }


_READINESS = _responses(
    "ready",
    "not ready",
    "The service is not ready, for the given `reason`",
    "NATS does not answer",
)
_LIVENESS = _responses(
    "ok",
    "failed",
    "The process is ending, for the given `reason`",
    "the event loop is stuck",
)


async def _no_notes() -> Mapping[str, str]:
    return {}


def health_router(check_ready: ReadinessCheck, notes: ReadinessNotes = _no_notes) -> APIRouter:
    """Return the routes `/healthz`, `/readyz` and `/metrics`.

    Args:
        check_ready: decides whether the service is ready.
        notes: further fields of the response of `/readyz`, which do not affect its status.
    """
    router = APIRouter(tags=["operations"])
    scraped_at, page = -inf, b""

    @router.get(
        "/healthz",
        summary="Check that the process is running",
        description="Succeeds while all parts of the process are running. Use it as a liveness probe.",
        responses=_LIVENESS,
    )
    async def healthz(response: Response) -> dict[str, str]:
        if failure := supervision.failure():
            response.status_code = 503
            return {"status": "failed", "reason": failure}
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="Check that the service is ready",
        description="Succeeds while the service can do its work. Use it as a readiness probe.",
        responses=_READINESS,
    )
    async def readyz(request: Request, response: Response) -> dict[str, str]:
        is_stopping = getattr(request.app.state, "is_stopping", False)
        unready_reason = "the process is stopping" if is_stopping else await check_ready()
        more = await notes()
        if unready_reason is None:
            return {"status": "ready", **more}
        response.status_code = 503
        return {"status": "not ready", "reason": unready_reason, **more}

    @router.get(
        "/metrics",
        summary="Get the metrics",
        description="Returns the metrics of this process in the Prometheus text format.",
        response_class=PlainTextResponse,
        include_in_schema=False,  # it is not served at the port of the API
    )
    async def metrics() -> Response:
        nonlocal scraped_at, page
        if monotonic() >= scraped_at + _SCRAPE_INTERVAL:
            scraped_at = monotonic()
            READY.set(await check_ready() is None)
            page = generate_latest()
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    return router


def serve(
    app: FastAPI,
    *,
    host: str,
    port: int,
    program: str,
    own: tuple[str, int] | None = None,
    drain_seconds: float = 0,
) -> None:
    """Serve the app until SIGTERM or SIGINT.

    Args:
        app: the service.
        host: the address to listen on.
        port: the port to listen on.
        program: the name in error messages.
        own: the address and the port that only this process has. The metrics are served only there. If the
            port is not 0, other processes can share `port`: the operating system distributes the connections.
        drain_seconds: how long requests are still answered after SIGTERM, while `/readyz` returns 503.

    Raises:
        SystemExit: an address cannot be used; the exit message says why.
    """
    listeners = listen(host, port, program, is_shared=own is not None and own[1] != 0)
    if own is not None:
        listeners += listen(*own, program)
    raise_descriptor_limit()
    private_port = listeners[-1].getsockname()[1] if own else None
    config = config_of(Admission(app, private_port=private_port))
    # The objects that exist now live as long as the process. Keeping the garbage collector from scanning them
    # saves a quarter of the CPU time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    server = _Server(config, app, drain_seconds)
    server.run(sockets=listeners)
    if server.supervisor.failure:
        sys.stderr.close()
        os._exit(1)  # without waiting for a thread, which may be what is stuck


class _Server(uvicorn.Server):
    """A server that supervises its process, and stops when the process has failed.

    After SIGTERM, it first gives a proxy time to notice that it is about to stop.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self.supervisor = Supervisor()
        self._state = app.state
        self._drain_seconds = drain_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.supervisor.install()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        self.supervisor.start()
        await super().main_loop()
        self.supervisor.stop()

    async def on_tick(self, counter: int) -> bool:
        self.supervisor.show_life()
        if counter % _TICKS_PER_SECOND == 0:
            self.supervisor.tick()
        return await super().on_tick(counter) or self.supervisor.failure is not None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_first = not getattr(self._state, "is_stopping", False)
        self._state.is_stopping = True
        if sig == signal.SIGTERM and is_first and self._drain_seconds:
            stop = threading.Timer(self._drain_seconds, super().handle_exit, (sig, frame))
            stop.daemon = True
            stop.start()
        else:
            super().handle_exit(sig, frame)


def listen(host: str, port: int, program: str, *, is_shared: bool = False) -> list[socket.socket]:
    """Listen on an address.

    Returns:
        Several descriptors of the same socket.

    Raises:
        SystemExit: the address cannot be used; the exit message says why.
    """
    try:
        listener = socket.create_server((host, port), backlog=MAX_CONNECTIONS, reuse_port=is_shared)
    except OSError as exc:
        sys.exit(f"{program}: cannot listen on {host}:{port}: {exc.strerror or exc}")
    return [listener, *(listener.dup() for _ in range(_ACCEPTED_AT_ONCE - 1))]
