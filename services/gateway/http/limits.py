"""The middleware that checks the content type and the size of a body as soon as something reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.http.errors import ProblemError
from shared.validation import MAX_BODY

_WITHOUT_BODY = {"GET", "HEAD"}
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class BodyRule:
    """The bodies that a path accepts.

    Attributes:
        media_type: the content type, without parameters; None accepts any.
        max_size: the limit in bytes.
    """

    media_type: str | None = _JSON
    max_size: int = MAX_BODY

    def accepts(self, content_type: str) -> bool:
        """Return whether a body of a content type is accepted; any type of JSON is (WHATWG MIME Sniffing)."""
        given = content_type.partition(";")[0].strip().lower()
        is_json = given in {_JSON, "text/json"} or ("/" in given and given.endswith("+json"))
        return self.media_type in {None, given} or (self.media_type == _JSON and is_json)


class BodyLimits:
    """Refuses a body of another content type with 415, and one that is too large with 413.

    A request that is refused for another reason before its body is read, or whose route has no body, is not
    checked.

    Args:
        app: the application.
        rules: by path; any other path has the default rule.
    """

    def __init__(self, app: ASGIApp, rules: Mapping[str, BodyRule]) -> None:
        self._app = app
        self._rules = rules
        self._default = BodyRule()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _WITHOUT_BODY:
            rule = self._rules.get(scope["path"], self._default)
            receive = _checked(receive, Headers(scope=scope), rule)
        await self._app(scope, receive, send)


def _checked(receive: Receive, headers: Headers, rule: BodyRule) -> Receive:
    size: int | None = None

    async def receive_checked() -> Message:
        nonlocal size
        if size is None:
            _check_headers(headers, rule)
            size = 0
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > rule.max_size:
                raise _too_large(rule)
        return message

    return receive_checked


def _check_headers(headers: Headers, rule: BodyRule) -> None:
    length = headers.get("content-length", "0")
    if length == "0" and "transfer-encoding" not in headers:
        return
    # Unlike `int`, `float` reads any number of digits.
    if length.isdecimal() and float(length) > rule.max_size:
        raise _too_large(rule)
    if not rule.accepts(headers.get("content-type", "")):
        detail = f"The content type must be {rule.media_type}"
        raise ProblemError(415, "unsupported_content_type", detail)


def _too_large(rule: BodyRule) -> ProblemError:
    return ProblemError(413, "body_too_large", f"The body is larger than {rule.max_size} bytes")
