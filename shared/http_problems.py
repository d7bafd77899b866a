"""Problem documents (RFC 9457), and whole responses for requests that do not reach an application."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

PROBLEM_TYPE = "application/problem+json"

PROBLEMS_PATH = "/problems/"
"""The beginning of the `type` of every problem: a page of the gateway explains it."""

_RETRY_AFTER = 2
_REQUEST_ID = "{request_id}"


def problem_document(
    status: int, code: str, detail: str, request_id: str, errors: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """Return the content of a problem document."""
    return {
        "type": PROBLEMS_PATH + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "errors": errors or [],
        "request_id": request_id,
    }


def refusal(status: int, code: str, detail: str, *, is_last: bool) -> Callable[[str], bytes]:
    """Return a function that returns a whole response with a problem document for the id of a request.

    Args:
        status: of the response.
        code: the kind of problem.
        detail: the problem in words.
        is_last: whether the connection is closed after it.
    """
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {PROBLEM_TYPE}",
        *([f"retry-after: {_RETRY_AFTER}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        *(["connection: close"] if is_last else []),
    ]
    start = "\r\n".join(head).encode()
    body = json.dumps(problem_document(status, code, detail, _REQUEST_ID)).encode()
    before, _, after = body.partition(_REQUEST_ID.encode())
    size = len(before) + len(after)

    def respond(request_id: str) -> bytes:
        id_ = request_id.encode()
        parts = (start, id_, size + len(id_), before, id_, after)
        return b"%b\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b%b%b" % parts

    return respond
