"""Answers to a client, in the form that a behaviour asks for."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from fastapi import Response

from mock_providers.behaviour import Behaviour

_BODILESS = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


def answer(
    status: int,
    content: Mapping[str, object] | None,
    behaviour: Behaviour,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The content as JSON, or an empty body for None; a page of HTML when the behaviour wants one."""
    headers = dict(headers or {})
    if behaviour.retry_after is not None:
        headers["Retry-After"] = str(behaviour.retry_after)
    if status in _BODILESS:
        return Response(status_code=status, headers=headers)
    if behaviour.html:
        page = f"<!DOCTYPE html>\n<html><body><h1>Status {status}</h1></body></html>\n"
        return Response(page, status, headers, media_type="text/html")
    if content is None:
        return Response(status_code=status, headers=headers)
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
