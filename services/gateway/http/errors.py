"""Problem documents (RFC 9457): the responses to requests that fail, and the exceptions behind them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope

from services.gateway.http.problem_kinds import PROBLEM_KINDS, ProblemCode, example_of, kinds_of
from shared.errors import DatabaseUnavailableError, MediaStoreUnavailableError, UnavailableError
from shared.http_problems import PROBLEM_TYPE, problem_document
from shared.observability.metrics import REFUSED
from shared.request_ids import HEADER, new_request_id
from shared.suppressions import SuppressionChange
from shared.validation import Fault, faults_of

_log = structlog.get_logger()

REQUEST_ID = "messaging.request_id"
"""The key of the request's id in its ASGI scope."""

WEBHOOKS = "/api/webhooks/"
"""The beginning of the paths of webhooks."""

_WITH_RETRY_AFTER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_RETRY_AFTER = "2"
"""Seconds: a lost connection is restored within about one."""

_DATABASE_UNAVAILABLE = "The database cannot be read at the moment"
_MEDIA_STORE_UNAVAILABLE = "The store of media does not answer at the moment"
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

    @property
    def document(self) -> "Problem":
        """The problem document, for a part of a response."""
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        errors = [asdict(fault) for fault in self.faults]
        return Problem.model_validate(
            problem_document(self.status_code, self.code, self.detail, request_id, errors)
        )


class UnauthorizedError(ProblemError):
    def __init__(self, detail: str, *, challenge: str, reason: str | None = None) -> None:
        headers = {"WWW-Authenticate": challenge}
        super().__init__(401, "unauthorized", detail, headers=headers, reason=reason)


class ForbiddenError(ProblemError):
    def __init__(self, detail: str) -> None:
        super().__init__(403, "read_only_key", detail)


class NotFoundError(ProblemError):
    def __init__(self, code: ProblemCode, detail: str) -> None:
        super().__init__(404, code, detail)


class ConflictError(ProblemError):
    """The request is not possible in the current state of the resource."""

    def __init__(self, code: ProblemCode, detail: str) -> None:
        super().__init__(409, code, detail)


class RecipientOptedOutError(ConflictError):
    """A recipient has opted out; the problem names the recipient if there are several."""

    def __init__(self, suppression: SuppressionChange, name: str | None = None) -> None:
        sender = suppression.ours or "all senders"
        date = suppression.occurred_at.isoformat(timespec="seconds")
        recipient = f"The recipient {name}" if name else "The recipient"
        detail = f"{recipient} opted out of messages from {sender} on {date} ({suppression.source})"
        super().__init__("recipient_opted_out", detail)


class InvalidRequestError(ProblemError):
    def __init__(self, *faults: Fault) -> None:
        super().__init__(422, "invalid_request", "The request is not valid", faults=faults)


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(
        description="Stable URI of the kind of problem, relative to the request: a page that explains it",
        examples=["/problems/invalid_request"],
        json_schema_extra={"format": "uri-reference"},
    )
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    code: ProblemCode = Field(
        description="The last part of `type`, for programs; later versions may add further codes",
        examples=["invalid_request"],
    )
    detail: str = Field(examples=["The request is not valid"])
    errors: list[Fault] = Field(description="The invalid fields, if any")
    request_id: str = Field(
        description="The `X-Request-Id` of the response, which the logs and traces also have",
        examples=["0199b1f0c2d47a3e8f51d6a7c3b2e940"],
    )


_DESCRIPTIONS = {
    400: "The body cannot be parsed",
    401: "The credentials are missing or invalid",
    403: "Not permitted",
    404: "Not found",
    409: "Not possible in the current state",
    410: "No longer stored",
    413: "The body is too large",
    415: "The content type is not supported",
    416: "The requested range is beyond the end of the file",
    422: "Some fields or parameters are invalid",
    429: "Too many requests or streams at the same time",
    503: "The service cannot answer at the moment",
}

_REFERENCE = "#/components/schemas/{model}"
_EXAMPLE = "#/components/examples/{code}"


def problems(*given: int | ProblemCode) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's problems, for its `responses`.

    Args:
        given: codes, and statuses that represent the problems that do not depend on the subject.
    """
    return {status: _documentation(status, codes) for status, codes in kinds_of(*given).items()}


def _documentation(status: int, codes: Sequence[ProblemCode]) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    examples = {code: {"$ref": _EXAMPLE.format(code=code)} for code in codes}
    names = ", ".join(f"`{code}`" for code in codes)
    response: dict[str, Any] = {
        "description": f"{_DESCRIPTIONS[status]}: {names}",
        "content": {PROBLEM_TYPE: {"schema": schema, "examples": examples}},
    }
    if status in _WITH_RETRY_AFTER:
        response["headers"] = {
            "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}, "example": 2}
        }
    return response


def problem_schemas() -> dict[str, Any]:
    """Return the JSON schemas that `problems` refers to, by name."""
    _, definitions = models_json_schema([(Problem, "validation")], ref_template=_REFERENCE)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def problem_examples() -> dict[str, Any]:
    """Return the examples that `problems` refers to, by code."""
    return {code: {"summary": kind.cause, "value": example_of(code)} for code, kind in PROBLEM_KINDS.items()}


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
        return problem(request, exc.status_code, exc.code, exc.detail, exc.faults, exc.headers)
    headers = exc.headers
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_at(request)):
        headers = {"Allow": ", ".join(methods)}
    code = _GENERIC_CODES.get(exc.status_code, "http_error")
    _report(request, code)
    return problem(request, exc.status_code, code, exc.detail, headers=headers)


def _report(request: Request, reason: str) -> None:
    """Count a request that is refused, and log it if it is a webhook, whose provider may not repeat it."""
    route = route_of(request.scope)
    REFUSED.labels(route, reason).inc()
    if route.startswith(WEBHOOKS):
        _log.warning("webhook_refused", route=route, reason=reason)


def _methods_at(request: Request) -> list[str]:
    """Return the methods at the request's path; the router knows only those of the first route there."""
    path = getattr(request.scope.get("route"), "path", None)
    methods = {method.upper() for method in request.app.openapi()["paths"].get(path, ())}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


async def _on_invalid_parameters(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - for mypy
    errors = exc.errors()
    if errors[0]["type"] == "json_invalid":
        _report(request, "malformed_body")
        return problem(request, 400, "malformed_body", f"The body is not JSON: {errors[0]['ctx']['error']}")
    _report(request, "invalid_request")
    errors = [{**error, "loc": error["loc"][1:]} for error in errors]
    return problem(request, 422, "invalid_request", "The request is not valid", faults_of(errors))


async def _on_unavailable(request: Request, exc: Exception) -> Response:
    _log.warning("dependency_unavailable", error=str(exc))
    headers = {"Retry-After": _RETRY_AFTER}
    if isinstance(exc, DatabaseUnavailableError):
        _report(request, "database_unavailable")
        return problem(request, 503, "database_unavailable", _DATABASE_UNAVAILABLE, headers=headers)
    if isinstance(exc, MediaStoreUnavailableError):
        _report(request, "media_store_unavailable")
        return problem(request, 503, "media_store_unavailable", _MEDIA_STORE_UNAVAILABLE, headers=headers)
    _report(request, "bus_unavailable")
    return problem(request, 503, "bus_unavailable", _BUS_UNAVAILABLE, headers=headers)


async def _on_unexpected(request: Request, _: Exception) -> Response:
    _report(request, "internal_error")
    # Starlette raises the exception again after sending this, and the server logs it.
    headers = {HEADER: request_id_in(request.scope)}  # no middleware sees this response
    return problem(request, 500, "internal_error", "An unexpected error occurred", headers=headers)


def request_id_in(scope: Scope) -> str:
    """Return the id of a request, which `Telemetry` has stored in its scope."""
    request_id: str = scope.setdefault(REQUEST_ID, new_request_id())
    return request_id


def route_of(scope: Scope) -> str:
    """Return the path of the route of a request, of which there are only a few."""
    return getattr(scope.get("route"), "path", "none")


def problem(
    request: Request,
    status: int,
    code: ProblemCode,
    detail: str,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document as a response."""
    errors = [asdict(fault) for fault in faults]
    content = problem_document(status, code, detail, request_id_in(request.scope), errors)
    return Response(json.dumps(content), status, dict(headers or {}), media_type=PROBLEM_TYPE)
