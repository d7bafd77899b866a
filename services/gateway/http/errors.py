"""What goes wrong, as RFC 9457 problem documents.

    ProblemError                    answers with its status
    ├── UnauthorizedError           401
    ├── ForbiddenError              403
    ├── NotFoundError               404
    ├── ConflictError               409
    │   └── RecipientOptedOutError  409, with since when and why
    └── InvalidRequestError         422, with the fields at fault

What `shared.errors` calls "not now" becomes 503 with `Retry-After`, and whatever nobody foresaw 500: its
traceback goes to the log, and nothing of it to the client.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from shared.errors import DatabaseUnavailableError, NotNowError
from shared.events import SuppressionChange

_log = structlog.get_logger()

PROBLEM_TYPE = "application/problem+json"

_RETRY_AFTER = "2"
"""Seconds: a connection that was lost is tried anew every second."""

_MAX_FAULTS = 20
_MAX_NAME = 100


_UNREADABLE = "The database cannot be read at the moment"
_UNSURE = (
    "The message bus does not answer. The request may have been accepted all the same: "
    "repeated with an Idempotency-Key it is one message, whether it was or not"
)

_WORDS = {
    "extra_forbidden": "is not a field of this request",
    "missing": "is required",
    "model_type": "has to be a JSON object",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a field: a path such as `attachments.0`, a query parameter or a header."""

    field: str
    detail: str


class ProblemError(Exception):
    """A request that is answered with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.headers = headers


class UnauthorizedError(ProblemError):
    def __init__(self, detail: str, *, challenge: str) -> None:
        super().__init__(401, detail, headers={"WWW-Authenticate": challenge})


class ForbiddenError(ProblemError):
    def __init__(self, detail: str) -> None:
        super().__init__(403, detail)


class NotFoundError(ProblemError):
    def __init__(self, what: str) -> None:
        super().__init__(404, f"There is no such {what}")


class ConflictError(ProblemError):
    def __init__(self, detail: str) -> None:
        super().__init__(409, detail)


class RecipientOptedOutError(ConflictError):
    def __init__(self, suppression: SuppressionChange) -> None:
        of_whom = suppression.ours or "us"
        since = suppression.occurred_at.isoformat(timespec="seconds")
        super().__init__(f"The recipient wants no messages of {of_whom} since {since} ({suppression.source})")


class InvalidRequestError(ProblemError):
    def __init__(self, *faults: Fault) -> None:
        super().__init__(422, "The request is not valid", faults=faults)


class FieldError(BaseModel):
    field: str = Field(description="Path in the body, query parameter or header", examples=["to"])
    detail: str = Field(examples=["is not a possible phone number"])


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The request is not valid"])
    errors: list[FieldError] = Field(description="The fields at fault, if any")


def faults_of(errors: Iterable[Mapping[str, Any]], *, whole: str = "body") -> list[Fault]:
    """Translate pydantic's errors. What was entered is not repeated.

    Args:
        errors: as `ValidationError.errors()` lists them.
        whole: name for what has no fields.
    """
    return [Fault(_field_name(error["loc"]) or whole, _words(error)) for error in list(errors)[:_MAX_FAULTS]]


def _words(error: Mapping[str, Any]) -> str:
    """Say what is wrong without the terms of the library."""
    return _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _field_name(location: Iterable[object]) -> str:
    # An unknown field is named by the client, who may have put anything into its name.
    return ".".join(map(str, location))[:_MAX_NAME].encode(errors="replace").decode()


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    app.add_exception_handler(NotNowError, _on_not_now)
    app.add_exception_handler(Exception, _on_unforeseen)


async def _on_problem(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, ProblemError)  # noqa: S101 - for mypy
    return _answer(exc.status, exc.detail, exc.faults, exc.headers)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101
    headers = exc.headers
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_at(request)):
        headers = {"Allow": ", ".join(methods)}
    return _answer(exc.status_code, exc.detail, headers=headers)


def _methods_at(request: Request) -> list[str]:
    """List what can be done at the request's path: the router knows the methods of its first route only."""
    path = getattr(request.scope.get("route"), "path", None)
    return sorted(method.upper() for method in request.app.openapi()["paths"].get(path, ()))


async def _on_invalid_parameters(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101
    errors = [{**error, "loc": error["loc"][1:]} for error in exc.errors()]
    return _answer(422, "The request is not valid", faults_of(errors))


async def _on_not_now(_: Request, exc: Exception) -> Response:
    detail = _UNREADABLE if isinstance(exc, DatabaseUnavailableError) else _UNSURE
    _log.warning("unavailable", error=str(exc))
    return _answer(503, detail, headers={"Retry-After": _RETRY_AFTER})


async def _on_unforeseen(_: Request, __: Exception) -> Response:
    # Starlette raises the exception again once this is sent, and the server logs it.
    return _answer(500, "Something went wrong here")


def _answer(
    status: int, detail: str, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None
) -> Response:
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [asdict(fault) for fault in faults],
    }
    return Response(json.dumps(problem), status, dict(headers or {}), media_type=PROBLEM_TYPE)
