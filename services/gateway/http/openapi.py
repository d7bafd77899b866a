"""The OpenAPI document: the one that FastAPI generates, with a few corrections."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from services.gateway.http.auth import authenticate
from services.gateway.http.docstrings import describe_attributes
from services.gateway.http.errors import problem_examples, problem_schemas, problems
from services.gateway.http.examples import example_of
from shared.request_ids import HEADER

_PAGE = re.compile(r"\bPage_(\w+?)(?:Response)?_(?=\W)")
_PREFIX = "#/components/schemas/"
_REFERENCE = re.compile(r'"#/components/(schemas|examples)/([^"]+)"')

_DESCRIPTION = f"""\
- Authenticate with `Authorization: Bearer …`, if the gateway has API keys.
- Every path below `/api/` also exists below `/api/v1/`, and HEAD wherever GET does.
- Send an `Idempotency-Key` with a message, and repeat the request with the same key if there was no response.
- Errors are problem documents (RFC 9457). Their `code` is for programs, and their `type` leads to a page that
  explains it; <problems> lists all of them.
- Every response has an `{HEADER}`: that of the request, if it is well-formed, or a new one.
- Unknown fields and unknown query parameters are refused. Responses may get further fields.
"""

_LICENSE = {"name": "Apache 2.0", "identifier": "Apache-2.0"}
_SERVERS = [{"url": "/", "description": "The gateway that serves this document"}]
_NULL = {"type": "null"}

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
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=_DESCRIPTION,
            license_info=_LICENSE,
            servers=_SERVERS,
            routes=app.routes,
            webhooks=app.webhooks.routes,
        )
        components = document["components"]
        components["schemas"].update(schemas, **problem_schemas())
        describe_attributes(components["schemas"])
        components["examples"] = problem_examples()
        _remove_default_422(document)
        _add_common_problems(document)
        document = _simplified(document, components["schemas"])
        components = document["components"]
        _remove_unused(document)
        if not app.state.api_keys:
            _remove_api_keys(document)
        for webhook in document["webhooks"].values():
            webhook["post"]["security"] = []
        for operation in _operations(document):
            operation.setdefault("security", [])
            _complete_responses(operation, components["schemas"])
        app.openapi_schema = json.loads(_PAGE.sub(r"\1Page", json.dumps(document)))
    return app.openapi_schema


def _simplified(part: Any, schemas: Json) -> Any:  # noqa: ANN401 - JSON
    """Return a part of a document in which no `anyOf` says that a value may be null.

    Client generators create a separate type for each `anyOf`, or fail. Examples are not changed.
    """
    if isinstance(part, list):
        return [_simplified(each, schemas) for each in part]
    if not isinstance(part, dict):
        return part
    part = {
        name: value if name in {"example", "examples"} else _simplified(value, schemas)
        for name, value in part.items()
    }
    if part.get("default", "") is None:
        del part["default"]
    options = part.get("anyOf")
    if isinstance(options, list) and _NULL in options:
        return _nullable(part, [option for option in options if option != _NULL], schemas)
    return part


def _nullable(part: Json, options: list[Json], schemas: Json) -> Json:
    rest = {name: value for name, value in part.items() if name != "anyOf"}
    if len(options) != 1:
        return part
    option = options[0]
    if "$ref" in option:
        named = schemas[option["$ref"].removeprefix(_PREFIX)]
        if "enum" not in named and named.get("additionalProperties", True):
            return part  # an object in a response
        option = _simplified({name: value for name, value in named.items() if name != "title"}, schemas)
    if not isinstance(option.get("type"), str):
        return part
    values = {name: [*option[name], None] for name in ("enum",) if name in option}
    if "const" in option:
        values = {"enum": [option["const"], None]}
        option = {name: value for name, value in option.items() if name != "const"}
    return {**option, **values, "type": [option["type"], "null"], **rest}


def _complete_responses(operation: Json, schemas: Json) -> None:
    """Add the id of the request and an example, which every response has."""
    header = {"description": "Id of the request", "schema": {"type": "string"}}
    for response in operation["responses"].values():
        response.setdefault("headers", {})[HEADER] = header
        for content in response.get("content", {}).values():
            if "schema" in content and "examples" not in content:
                content.setdefault("example", example_of(content["schema"], schemas))


def _remove_default_422(document: Json) -> None:
    """Remove the 422 that FastAPI adds to each path with a parameter. An invalid id is a 404 here."""
    for operation in _operations(document):
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]


def _add_common_problems(document: Json) -> None:
    """Add the problems of every operation that needs an API key: read-only keys, and unknown parameters."""
    for path in document["paths"].values():
        for method, operation in path.items():
            if operation.get("security") == [{authenticate.scheme_name: []}]:
                common = problems(422) if method == "get" else problems("read_only_key", 422)
                missing = {str(status): response for status, response in common.items()}
                operation["responses"] = dict(sorted({**missing, **operation["responses"]}.items()))


def _remove_unused(document: Json) -> None:
    components = document["components"]
    known = {(kind, name) for kind in ("schemas", "examples") for name in components[kind]}
    while unused := known - set(_REFERENCE.findall(json.dumps(document))):
        for kind, name in unused:
            del components[kind][name]
        known -= unused


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
