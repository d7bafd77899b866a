"""Metrics and traces of requests."""

import time
from contextlib import AbstractContextManager, nullcontext
from http import HTTPMethod

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.http.errors import route_of
from shared.observability import tracing
from shared.observability.metrics import HTTP_ERRORS, HTTP_SECONDS

EVENT_STREAM = "text/event-stream; charset=utf-8"
"""The content type of server-sent events."""

_FIRST_ERROR = 400
_METHODS = frozenset(HTTPMethod)


class Telemetry:
    """Counts, times and traces requests by the path of their route, of which there are only a few."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, method = 500, _method_of(scope)
        started, responded = time.perf_counter(), None

        async def send_observed(message: Message) -> None:
            nonlocal status, responded
            if message["type"] == "http.response.start":
                status = message["status"]
                if (b"content-type", EVENT_STREAM.encode()) in message["headers"]:
                    responded = time.perf_counter()  # a stream lasts as long as its client reads it
            await send(message)

        with _span(scope):
            try:
                await self._app(scope, receive, send_observed)
            finally:
                route = route_of(scope)
                HTTP_SECONDS.labels(method, route, status).observe(
                    (responded or time.perf_counter()) - started
                )
                tracing.served(method, route, status)
                if status >= _FIRST_ERROR:
                    HTTP_ERRORS.labels(status).inc()


def _span(scope: Scope) -> AbstractContextManager[None]:
    # Health checks and scrapes do not belong to a message.
    traced = tracing.is_on() and scope["path"].startswith("/api/")
    return tracing.serving(_method_of(scope), Headers(scope=scope)) if traced else nullcontext()


def _method_of(scope: Scope) -> str:
    """Return the method; those that clients invent are all counted under one name, as in OpenTelemetry."""
    method: str = scope["method"]
    return method if method in _METHODS else "_OTHER"
