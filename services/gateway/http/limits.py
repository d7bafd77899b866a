"""The middleware that checks the content type and the size of every body before anything reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.http.errors import ProblemError, problem
from shared.validation import MAX_BODY

_WITHOUT_BODY = {"GET", "HEAD"}


@dataclass(frozen=True, slots=True)
class BodyRule:
    """The bodies that a path accepts; `max_size` in bytes."""

    media_type: str = "application/json"
    max_size: int = MAX_BODY


class BodyLimits:
    """Refuses a body of another content type with 415, and one that is too large with 413.

    Args:
        app: the application.
        rules: by path; any other path has the default rule.
    """

    def __init__(self, app: ASGIApp, rules: Mapping[str, BodyRule]) -> None:
        self._app = app
        self._rules = rules
        self._default = BodyRule()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_checked(scope):
            await self._app(scope, receive, send)
            return
        rule = self._rules.get(scope["path"], self._default)
        headers = Headers(scope=scope)
        try:
            _check(headers, rule)
        except ProblemError as exc:
            await problem(exc.status_code, exc.code, exc.detail)(scope, receive, send)
            return
        await self._app(scope, _limited(receive, rule), send)


def _is_checked(scope: Scope) -> bool:
    is_api = scope["type"] == "http" and scope["path"].startswith("/api/")
    return is_api and scope["method"] not in _WITHOUT_BODY


def _check(headers: Headers, rule: BodyRule) -> None:
    length = headers.get("content-length")
    # Unlike `int`, `float` reads any number of digits.
    if length is not None and length.isdecimal() and float(length) > rule.max_size:
        raise _too_large(rule)
    has_body = length not in {None, "0"} or "transfer-encoding" in headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and media_type != rule.media_type:
        detail = f"The content type must be {rule.media_type}"
        raise ProblemError(415, "unsupported_content_type", detail)


def _limited(receive: Receive, rule: BodyRule) -> Receive:
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > rule.max_size:
                raise _too_large(rule)
        return message

    return receive_limited


def _too_large(rule: BodyRule) -> ProblemError:
    return ProblemError(413, "body_too_large", f"The body is larger than {rule.max_size} bytes")
