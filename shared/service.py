"""Code that every service needs: health endpoints, and a server that stops on a signal."""

import gc
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from time import monotonic
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.http_server import Admission, config_of, raise_descriptor_limit
from shared.observability.metrics import READY

_SCRAPE_INTERVAL = 0.5
"""Seconds. Metrics are not collected more often, because each time takes several milliseconds."""

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
    scraped_at, page = -inf, b""

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
    async def readyz(response: Response) -> dict[str, str]:
        unready_reason = await check_ready()
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
        nonlocal scraped_at, page
        if monotonic() >= scraped_at + _SCRAPE_INTERVAL:
            scraped_at = monotonic()
            READY.set(await check_ready() is None)
            page = generate_latest()
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    return router


def serve(app: FastAPI, *, host: str, port: int, program: str, own: tuple[str, int] | None = None) -> None:
    """Serve the app until SIGTERM or SIGINT.

    With `own`, the app is also served at an address that only this process has, and the metrics are served
    only there. If that has a fixed port, other processes can share `port`: the operating system distributes
    the connections.

    Raises:
        SystemExit: an address cannot be used; the exit message says why.
    """
    listeners = [_listen(host, port, program, is_shared=own is not None and own[1] != 0)]
    if own is not None:
        listeners.append(_listen(*own, program))
    raise_descriptor_limit()
    private_port = listeners[-1].getsockname()[1] if own else None
    config = config_of(Admission(app, private_port=private_port))
    # The objects that exist now live as long as the process. Keeping the garbage collector from scanning them
    # saves a quarter of the CPU time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    uvicorn.Server(config).run(sockets=listeners)


def _listen(host: str, port: int, program: str, *, is_shared: bool = False) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=4_096, reuse_port=is_shared)
    except OSError as exc:
        sys.exit(f"{program}: cannot listen on {host}:{port}: {exc.strerror or exc}")
