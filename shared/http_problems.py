"""Problem documents (RFC 9457) of requests that do not reach an application."""

import json
from http import HTTPStatus

PROBLEM_TYPE = "application/problem+json"
_RETRY_AFTER = 2


def problem(status: int, code: str, detail: str, *, is_last: bool) -> bytes:
    """Return a whole response with a problem document."""
    body = problem_body(status, code, detail)
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {PROBLEM_TYPE}",
        f"content-length: {len(body)}",
        *([f"retry-after: {_RETRY_AFTER}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        *(["connection: close"] if is_last else []),
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def problem_body(status: int, code: str, detail: str) -> bytes:
    """Return a problem document like those of the gateway."""
    content = {
        "type": f"urn:messaging:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "errors": [],
    }
    return json.dumps(content).encode()
