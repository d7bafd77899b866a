from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from shared.request_ids import HEADER

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "traceparent",
    HEADER,
)
_RESPONSE_HEADERS = ("Idempotency-Replayed", "Last-Event-ID", "Location", "Retry-After", HEADER)


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Allow web pages of some origins to call the application from a browser; by default, none may."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
        )
