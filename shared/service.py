"""What every service has: a process that ends on a signal, and HTTP endpoints that tell how it is."""

import gc
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.observability.metrics import READY

_GRACE_SECONDS = 5

Check = Callable[[], Awaitable[str | None]]
"""Tells what is missing, or None when all is well."""

Notes = Callable[[], Awaitable[Mapping[str, str]]]
"""Tells more about how things are, by name."""

_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "Something is missing", "model": dict[str, str]}
}


async def _no_notes() -> Mapping[str, str]:
    return {}


def health_router(check_ready: Check, notes: Notes = _no_notes) -> APIRouter:
    """Make `/healthz` (the process runs), `/readyz` (it can do its work) and `/metrics` (Prometheus).

    Args:
        check_ready: decides about `/readyz`.
        notes: what `/readyz` tells beside that.
    """
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="Whether the process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Whether the service can do its work", responses=_NOT_READY)
    async def readyz(response: Response) -> dict[str, str]:
        missing = await check_ready()
        noted = await notes()
        if missing is None:
            return {"status": "ready", **noted}
        response.status_code = 503
        return {"status": "not ready", "missing": missing, **noted}

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        READY.set(await check_ready() is None)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def serve(app: FastAPI, *, host: str, port: int, program: str) -> None:
    """Serve until SIGTERM or SIGINT; ends the program with one line if the port is in use."""
    try:
        listener = socket.create_server((host, port), backlog=2_048)
    except OSError as exc:
        sys.exit(f"{program}: cannot listen on {host}:{port}: {exc.strerror or exc}")
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=30,
    )
    # What was made so far stays. Not looking through it again and again saves a quarter of the processor.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run(sockets=[listener])
