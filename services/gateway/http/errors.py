"""Problem documents (RFC 9457): the responses to requests that fail, and the exceptions behind them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Literal

import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope

from shared.errors import DatabaseUnavailableError, UnavailableError
from shared.observability.metrics import REFUSED
from shared.suppressions import SuppressionChange
from shared.validation import Fault, faults_of

_log = structlog.get_logger()

PROBLEM_TYPE = "application/problem+json"

WEBHOOKS = "/api/webhooks/"
"""The beginning of the paths of webhooks."""

ProblemCode = Literal[
    "already_sent",
    "body_timeout",
    "body_too_large",
    "bus_unavailable",
    "conversation_not_found",
    "database_unavailable",
    "dead_letter_not_found",
    "dead_letter_resolved",
    "event_not_retained",
    "events_expired",
    "headers_too_large",
    "http_error",
    "incomplete_body",
    "internal_error",
    "invalid_request",
    "malformed_body",
    "malformed_request",
    "message_not_found",
    "method_not_allowed",
    "not_cancelable",
    "not_found",
    "nothing_to_replay",
    "outcome_unknown",
    "overloaded",
    "payload_cut",
    "recipient_opted_out",
    "signature_refused",
    "subscription_not_found",
    "too_many_streams",
    "too_many_webhook_endpoints",
    "unauthorized",
    "unsupported_content_type",
    "webhook_attempt_not_found",
    "webhook_endpoint_changing",
    "webhook_endpoint_disabled",
    "webhook_endpoint_not_found",
    "webhook_endpoints_not_configured",
]
"""The kinds of problems. Clients rely on these codes, so they are never renamed."""

_TYPE_PREFIX = "urn:messaging:problem:"

_RETRY_AFTER = "2"
"""Seconds: a lost connection is restored within about one."""

_DATABASE_UNAVAILABLE = "The database cannot be read at the moment"
_BUS_UNAVAILABLE = (
    "NATS does not answer. The request may still have been accepted. "
    "Retry it with the same Idempotency-Key to avoid a duplicate."
)

_GENERIC_CODES: Mapping[int, ProblemCode] = {
    HTTPStatus.BAD_REQUEST: "malformed_body",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
"""Codes of the errors that FastAPI itself raises."""


class ProblemError(HTTPException):
    """An error that is returned to the client as a problem document.

    Attributes:
        code: the kind of problem, for programs.
        faults: the fields at fault, if any.
        reason: a more precise kind, for the metrics.
    """

    def __init__(
        self,
        status: int,
        code: ProblemCode,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(status, detail, headers=dict(headers or {}))
        self.code = code
        self.faults = faults
        self.reason = reason or code


class UnauthorizedError(ProblemError):
    def __init__(self, detail: str, *, challenge: str, reason: str | None = None) -> None:
        headers = {"WWW-Authenticate": challenge}
        super().__init__(401, "unauthorized", detail, headers=headers, reason=reason)


class NotFoundError(ProblemError):
    def __init__(self, code: ProblemCode, detail: str) -> None:
        super().__init__(404, code, detail)


class ConflictError(ProblemError):
    """The request is not possible in the current state of the resource."""

    def __init__(self, code: ProblemCode, detail: str) -> None:
        super().__init__(409, code, detail)


class RecipientOptedOutError(ConflictError):
    """A recipient has opted out; one of `cc` or `bcc` is named."""

    def __init__(self, suppression: SuppressionChange, copy: str | None = None) -> None:
        sender = suppression.ours or "all senders"
        date = suppression.occurred_at.isoformat(timespec="seconds")
        recipient = f"The recipient {copy}" if copy else "The recipient"
        detail = f"{recipient} opted out of messages from {sender} on {date} ({suppression.source})"
        super().__init__("recipient_opted_out", detail)


class InvalidRequestError(ProblemError):
    def __init__(self, *faults: Fault) -> None:
        super().__init__(422, "invalid_request", "The request is not valid", faults=faults)


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(
        description="Stable URI of the kind of problem", examples=["urn:messaging:problem:invalid_request"]
    )
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    code: ProblemCode = Field(
        description="The last part of `type`, for programs; later versions may add further codes",
        examples=["invalid_request"],
    )
    detail: str = Field(examples=["The request is not valid"])
    errors: list[Fault] = Field(description="The invalid fields, if any")


_DESCRIPTIONS = {
    400: "The body cannot be parsed",
    401: "The credentials are missing or invalid",
    403: "The signature of the provider is missing or invalid",
    404: "Not found",
    409: "Not possible in the current state, for example because the recipient has opted out",
    410: "The events after this position are no longer stored",
    413: "The body is too large",
    415: "The content type is not supported",
    422: "Some fields are invalid",
    429: "The caller has too many open streams",
    503: (
        "There are too many requests (`overloaded`), the body did not arrive in time (`body_timeout`), or "
        "NATS or PostgreSQL does not answer. In the last case, the request may still have been accepted; "
        "retry it with the same `Idempotency-Key` to avoid a duplicate"
    ),
}


_REFERENCE = "#/components/schemas/{model}"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's problems, for its `responses`."""
    return {status: _documentation(status) for status in statuses}


def _documentation(status: int) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    response: dict[str, Any] = {
        "description": _DESCRIPTIONS[status],
        "content": {PROBLEM_TYPE: {"schema": schema}},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response


def problem_schemas() -> dict[str, Any]:
    """Return the JSON schemas that `problems` refers to, by name."""
    _, definitions = models_json_schema([(Problem, "validation")], ref_template=_REFERENCE)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def add_error_handlers(app: FastAPI) -> None:
    """Return a problem document for every error of the application."""
    app.add_exception_handler(StarletteHTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    app.add_exception_handler(UnavailableError, _on_unavailable)
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, StarletteHTTPException)  # noqa: S101 - for mypy
    if isinstance(exc, ProblemError):
        _report(request, exc.reason)
        return problem(exc.status_code, exc.code, exc.detail, exc.faults, exc.headers)
    headers = exc.headers
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_at(request)):
        headers = {"Allow": ", ".join(methods)}
    code = _GENERIC_CODES.get(exc.status_code, "http_error")
    _report(request, code)
    return problem(exc.status_code, code, exc.detail, headers=headers)


def _report(request: Request, reason: str) -> None:
    """Count a request that is refused, and log it if it is a webhook, whose provider may not repeat it."""
    route = route_of(request.scope)
    REFUSED.labels(route, reason).inc()
    if route.startswith(WEBHOOKS):
        _log.warning("webhook_refused", route=route, reason=reason)


def _methods_at(request: Request) -> list[str]:
    """Return the methods at the request's path; the router knows only those of the first route there."""
    path = getattr(request.scope.get("route"), "path", None)
    return sorted(method.upper() for method in request.app.openapi()["paths"].get(path, ()))


async def _on_invalid_parameters(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - for mypy
    errors = exc.errors()
    if errors[0]["type"] == "json_invalid":
        _report(request, "malformed_body")
        return problem(400, "malformed_body", f"The body is not JSON: {errors[0]['ctx']['error']}")
    _report(request, "invalid_request")
    errors = [{**error, "loc": error["loc"][1:]} for error in errors]
    return problem(422, "invalid_request", "The request is not valid", faults_of(errors))


async def _on_unavailable(request: Request, exc: Exception) -> Response:
    _log.warning("dependency_unavailable", error=str(exc))
    headers = {"Retry-After": _RETRY_AFTER}
    if isinstance(exc, DatabaseUnavailableError):
        _report(request, "database_unavailable")
        return problem(503, "database_unavailable", _DATABASE_UNAVAILABLE, headers=headers)
    _report(request, "bus_unavailable")
    return problem(503, "bus_unavailable", _BUS_UNAVAILABLE, headers=headers)


async def _on_unexpected(request: Request, _: Exception) -> Response:
    _report(request, "internal_error")
    # Starlette raises the exception again after sending this, and the server logs it.
    return problem(500, "internal_error", "An unexpected error occurred")


def route_of(scope: Scope) -> str:
    """Return the path of the route of a request, of which there are only a few."""
    return getattr(scope.get("route"), "path", "none")


def problem(
    status: int,
    code: ProblemCode,
    detail: str,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document as a response."""
    content = {
        "type": f"{_TYPE_PREFIX}{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "errors": [asdict(fault) for fault in faults],
    }
    return Response(json.dumps(content), status, dict(headers or {}), media_type=PROBLEM_TYPE)
