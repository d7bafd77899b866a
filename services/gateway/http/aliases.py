from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALLED_PATH = "messaging.called_path"
"""The key of the path with a version in the ASGI scope of a request to it."""

_PREFIX = "/api/"
_VERSIONED = "/api/v1/"


class Aliases:
    """Answers `/api/v1/…` as `/api/…`, and HEAD as GET without the body.

    `/api` permanently refers to the first version of the API; a second one would only have its own prefix.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith(_VERSIONED):
            scope[CALLED_PATH] = scope["path"]
            scope["path"] = _PREFIX + scope["path"][len(_VERSIONED) :]
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # The server has to know that it was HEAD. A stream of events would never end.
        headers = [header for header in scope["headers"] if header[0] != b"accept"]
        as_get = {**scope, "method": "GET", "headers": headers}
        try:
            await self._app(as_get, receive, send_head)
        finally:
            scope["route"] = as_get.get("route")
