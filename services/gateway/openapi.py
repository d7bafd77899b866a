"""What FastAPI cannot know of the OpenAPI document: bodies that are read by hand, and problem documents."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.gateway.http.errors import PROBLEM_TYPE, Problem
from services.gateway.messages.idempotency import HEADER, PATTERN
from services.gateway.schemas import (
    BulkDiscard,
    BulkReplay,
    Discard,
    EmailReceipt,
    EmailSend,
    EmailWebhook,
    SmsReceipt,
    SmsSend,
    SmsWebhook,
    Suppress,
)

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (
    SmsSend,
    EmailSend,
    SmsWebhook,
    EmailWebhook,
    SmsReceipt,
    EmailReceipt,
    Discard,
    BulkReplay,
    BulkDiscard,
    Suppress,
    Problem,
)
_PROBLEMS = {
    400: "The body cannot be read",
    401: "No valid credentials",
    403: "The provider has not signed it",
    404: "There is no such thing",
    409: "It cannot be done, or not again; of a send: its recipient has opted out",
    413: "The body is too large",
    415: "The content type is another",
    422: "Some fields are not valid",
    503: (
        "NATS or PostgreSQL does not answer: try again. A send may have been accepted all the same; "
        "with an `Idempotency-Key`, its repetition is the same message"
    ),
}

ACCEPTED: Json = {
    "description": "Accepted, and safely stored",
    "headers": {
        "Location": {"description": "Where to look for what becomes of it", "schema": {"type": "string"}}
    },
}

IDEMPOTENCY_KEY: Json = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Requests with the same key are the same message, and get the same answer",
    "schema": {"type": "string", "format": "idempotency-key", "pattern": PATTERN},
}


def takes(model: type[BaseModel], *parameters: Json) -> Json:
    """Document a body, and parameters, that a route reads by itself (for `openapi_extra`)."""
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    extra: Json = {"requestBody": {"required": True, "content": content}}
    if parameters:
        extra["parameters"] = list(parameters)
    return extra


def takes_raw(media_type: str, schema: Json) -> Json:
    """Document a body that is no JSON of ours (for `openapi_extra`)."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def problems(*statuses: int) -> dict[int | str, Json]:
    """Document the problems that a route may answer with (for `responses`)."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> Json:
    response: Json = {
        "description": _PROBLEMS[status],
        "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}},
    }
    if status == 503:  # noqa: PLR2004 - the status by which one waits
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response


def describer(app: FastAPI) -> Callable[[], Json]:
    """Make what FastAPI calls for the document, which is written once."""
    return partial(_describe, app)


def _describe(app: FastAPI) -> Json:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
        _drop_what_never_happens(document)
        document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
        app.openapi_schema = document
    return app.openapi_schema


def _drop_what_never_happens(document: Json) -> None:
    """Take out the 422 that FastAPI adds to every path with a parameter: an id that is none is a 404."""
    for operations in document["paths"].values():
        for operation in operations.values():
            response = operation["responses"].get("422", {})
            if "application/json" in response.get("content", {}):
                del operation["responses"]["422"]
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
