"""Responses to a client, in the form that a behaviour asks for."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from fastapi import Response

from mock_providers.behaviour import Behaviour

_WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


def make_response(
    status: int,
    content: Mapping[str, object] | None,
    behaviour: Behaviour,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the content as JSON (or no body for None), unless the behaviour asks for an HTML page."""
    headers = dict(headers or {})
    if behaviour.retry_after is not None:
        headers["Retry-After"] = str(behaviour.retry_after)
    if status in _WITHOUT_BODY:
        return Response(status_code=status, headers=headers)
    if behaviour.html:
        page = f"<!DOCTYPE html>\n<html><body><h1>Status {status}</h1></body></html>\n"
        return Response(page, status, headers, media_type="text/html")
    if content is None:
        return Response(status_code=status, headers=headers)
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
