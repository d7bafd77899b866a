"""Reading request bodies: every way in which one can be no JSON ends here."""

import json
from collections.abc import Mapping
from typing import Any, Never, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from services.gateway.http.errors import InvalidRequestError, ProblemError, faults_of

Model = TypeVar("Model", bound=BaseModel)

MAX_BODY = 256 * 1024
"""Bytes of a request; a message has to fit into one of NATS, 1 MiB, together with what is said about it."""

_JSON = "application/json"

_MAX_DEPTH = 64
"""Arrays and objects within one another. Readers of the streams have limits of their own, further up."""


async def read_body(request: Request, *, limit: int = MAX_BODY) -> bytes:
    """Read the body of up to `limit` bytes, once; it stays with the request.

    Raises:
        ProblemError: 413, before more than the limit has been read, or 400 if the client is gone.
    """
    kept: bytes | None = getattr(request.state, "body", None)
    if kept is not None:
        return kept
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    read = bytearray()
    try:
        async for chunk in request.stream():
            read += chunk
            if len(read) > limit:
                raise _too_large(limit)
    except ClientDisconnect as exc:
        raise ProblemError(400, "The body is cut off") from exc
    request.state.body = body = bytes(read)
    return body


async def read_json(request: Request, *, limit: int = MAX_BODY) -> Any:  # noqa: ANN401 - JSON may be anything
    """Read and parse the body, of up to `limit` bytes. Strings in it may still hold lone surrogates.

    Raises:
        ProblemError: 413, 415 for another content type, or 400.
    """
    require_media_type(request, _JSON)
    body = await read_body(request, limit=limit)
    try:
        # The one parser that lets a lone surrogate pass, on to where its field can be named.
        value = json.loads(body.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as exc:
        raise ProblemError(400, "The body is not UTF-8") from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    except ValueError as exc:
        raise ProblemError(400, f"The body is not JSON: {exc}") from exc
    if _is_deeper(value, _MAX_DEPTH):
        raise _too_deep()
    return value


async def read_model(request: Request, model: type[Model], *, default_region: str) -> Model:
    """Read and check the body in one go, and only if that fails step by step, to name every mistake.

    Raises:
        ProblemError: as `read_json` and `validate` do.
    """
    require_media_type(request, _JSON)
    body = await read_body(request)
    try:
        return model.model_validate_json(body, context={"default_region": default_region})
    except ValidationError:
        return validate(await read_json(request), model, default_region=default_region)


def validate(value: object, model: type[Model], *, default_region: str) -> Model:
    """Check what was parsed.

    Raises:
        InvalidRequestError: 422, with every field at fault.
    """
    try:
        return model.model_validate(value, context={"default_region": default_region})
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequestError(*faults_of(errors)) from exc


def media_type_of(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def require_media_type(request: Request, media_type: str) -> None:
    if media_type_of(request.headers) != media_type:
        raise ProblemError(415, f"The content type has to be {media_type}")


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is no number of JSON")


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in value)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, f"The body is larger than {limit} bytes")


def _too_deep() -> ProblemError:
    return ProblemError(400, "The body is nested too deeply")
