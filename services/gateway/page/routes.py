"""The page at `/`, for operators and newcomers: static files that use only the API."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import Scope

_STATIC = Path(__file__).with_name("static")

_HEADERS = {
    # Nothing is requested from another host. E-mails are shown in sandboxed frames, which inherit this
    # policy. Attachments are fetched with the API key, and shown as `blob:` URLs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The browser asks whether a file has changed, and gets a 304 if it has not.
    "Cache-Control": "no-cache",
}


class _PageFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def mount_page(app: FastAPI) -> None:
    """Add the page at `/` and its files below `/page`."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html", headers=_HEADERS)

    app.mount("/page", GZipMiddleware(_PageFiles(directory=_STATIC)))
