"""The OpenAPI document: the one that FastAPI generates, with a few corrections."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from services.gateway.http.auth import authenticate
from services.gateway.http.errors import problem_schemas

_REFERENCE = re.compile(r'"#/components/schemas/([^"]+)"')

Json = dict[str, Any]


def operation_id(route: APIRoute) -> str:
    """Return the name of the route's handler, as the names of methods in generated clients."""
    return route.name


def install_openapi(app: FastAPI, schemas: Mapping[str, Any]) -> None:
    """Correct the OpenAPI document of an application.

    Args:
        app: the application.
        schemas: JSON schemas that the routes refer to, by name.
    """
    app.openapi = lambda: _document(app, schemas)  # type: ignore[method-assign] # as FastAPI documents it


def _document(app: FastAPI, schemas: Mapping[str, Any]) -> Json:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        document["components"]["schemas"].update(schemas, **problem_schemas())
        _remove_default_422(document)
        _remove_unused_schemas(document)
        if not app.state.api_keys:
            _remove_api_keys(document)
        app.openapi_schema = document
    return app.openapi_schema


def _remove_default_422(document: Json) -> None:
    """Remove the 422 that FastAPI adds to each path with a parameter. An invalid id is a 404 here."""
    for operation in _operations(document):
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]


def _remove_unused_schemas(document: Json) -> None:
    schemas = document["components"]["schemas"]
    while unused := schemas.keys() - set(_REFERENCE.findall(json.dumps(document))):
        for name in unused:
            del schemas[name]


def _remove_api_keys(document: Json) -> None:
    """Remove the security scheme of a gateway that does not require API keys."""
    name, components = authenticate.scheme_name, document["components"]
    del components["securitySchemes"][name]
    if not components["securitySchemes"]:
        del components["securitySchemes"]
    for operation in _operations(document):
        if operation.get("security") == [{name: []}]:
            del operation["security"]


def _operations(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        yield from path.values()
