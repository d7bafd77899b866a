"""The page at `/`, for operators and newcomers: static files that use only the API."""

import gzip
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

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
    "Vary": "Accept-Encoding",
}
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page; it is small enough to be kept in memory."""

    content: bytes
    compressed: bytes
    media_type: str

    @classmethod
    def of(cls, name: str, content: bytes) -> "PageFile":
        media_type = _MEDIA_TYPES.get(Path(name).suffix, "text/plain")
        return cls(content, gzip.compress(content, mtime=0), media_type)

    def response(self, request: Request, cache_control: str) -> Response:
        headers = {**_HEADERS, "Cache-Control": cache_control}
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return Response(self.content, headers=headers, media_type=self.media_type)
        headers["Content-Encoding"] = "gzip"
        return Response(self.compressed, headers=headers, media_type=self.media_type)


def read_page_files() -> dict[str, PageFile]:
    """Return the files of the page by their paths."""
    return {
        path.relative_to(_STATIC).as_posix(): PageFile.of(path.name, path.read_bytes())
        for path in sorted(_STATIC.rglob("*"))
        if path.is_file()
    }


def mount_page(app: FastAPI) -> None:
    """Add the page at `/`, and its files below `/page`.

    The URLs of the files contain a digest of all of them, so that browsers can cache them indefinitely, and
    never combine the files of two releases.
    """
    files = read_page_files()
    digest = sha256(b"".join(file.content for file in files.values())).hexdigest()[:16]
    page = files.pop("index.html").content.replace(b'="page/', f'="page/{digest}/'.encode())
    index = PageFile.of("index.html", page)

    @app.get("/", include_in_schema=False)
    async def show_page(request: Request) -> Response:
        return index.response(request, "no-cache")

    @app.get("/page/{version}/{path:path}", include_in_schema=False)
    async def get_page_file(request: Request, version: str, path: str) -> Response:
        if path not in files:
            raise HTTPException(404)
        # During an upgrade, a gateway of one release may be asked for the files of another.
        return files[path].response(request, _IMMUTABLE if version == digest else "no-store")
