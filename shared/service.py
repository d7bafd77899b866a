"""Code that every service needs: health endpoints, and a server that stops on a signal."""

import gc
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.observability.metrics import READY

_GRACE_SECONDS = 5

ReadinessCheck = Callable[[], Awaitable[str | None]]
"""Returns the reason why the service is not ready, or None if it is ready."""

ReadinessNotes = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the state of dependencies that the service can work without, by name."""

_UNREADY: dict[int | str, dict[str, Any]] = {
    503: {"description": "The service is not ready, for the given `reason`", "model": dict[str, str]}
}


async def _no_notes() -> Mapping[str, str]:
    return {}


def health_router(check_ready: ReadinessCheck, notes: ReadinessNotes = _no_notes) -> APIRouter:
    """Return the routes `/healthz`, `/readyz` and `/metrics`.

    Args:
        check_ready: decides whether the service is ready.
        notes: further fields of the response of `/readyz`, which do not affect its status.
    """
    router = APIRouter(tags=["operations"])

    @router.get(
        "/healthz",
        summary="Check that the process is running",
        description="Always succeeds while the process answers requests. Use it as a liveness probe.",
    )
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="Check that the service is ready",
        description="Succeeds while the service can do its work. Use it as a readiness probe.",
        responses=_UNREADY,
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
    )
    async def metrics() -> Response:
        READY.set(await check_ready() is None)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def serve(
    app: FastAPI,
    *,
    host: str,
    port: int,
    program: str,
    own_port: int | None = None,
    drain_seconds: float = 0,
) -> None:
    """Serve the app until SIGTERM or SIGINT.

    Args:
        app: the service.
        host: the address to listen on.
        port: the port to listen on.
        program: the name in error messages.
        own_port: a further port, at the loopback interface. Processes that have one can share `port`; the
            operating system distributes the connections.
        drain_seconds: after SIGTERM, requests are still answered for so long, while `/readyz` returns 503.

    Raises:
        SystemExit: an address cannot be used; the exit message says why.
    """
    listeners = [_listen(host, port, program, is_shared=own_port is not None)]
    if own_port is not None:
        listeners.append(_listen("127.0.0.1", own_port, program))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing depends on the client's address
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=30,
    )
    # The objects that exist now live as long as the process. Keeping the garbage collector from scanning them
    # saves a quarter of the CPU time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    _Server(config, app, drain_seconds).run(sockets=listeners)


class _Server(uvicorn.Server):
    """A server that gives a proxy time to notice that it is about to stop."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self._state = app.state
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_first = not getattr(self._state, "is_stopping", False)
        self._state.is_stopping = True
        if sig == signal.SIGTERM and is_first and self._drain_seconds:
            stop = threading.Timer(self._drain_seconds, super().handle_exit, (sig, frame))
            stop.daemon = True
            stop.start()
        else:
            super().handle_exit(sig, frame)


def _listen(host: str, port: int, program: str, *, is_shared: bool = False) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2_048, reuse_port=is_shared)
    except OSError as exc:
        sys.exit(f"{program}: cannot listen on {host}:{port}: {exc.strerror or exc}")
