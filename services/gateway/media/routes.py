import mimetypes
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import StreamingResponse

from services.gateway.dependencies import MediaFiles, MediaStoreDep
from services.gateway.http.errors import ConflictError, NotFoundError, ProblemError, problems
from services.gateway.http.parameters import parse_uuid
from services.gateway.media.ranges import UnsatisfiableRangeError, parse_range
from shared.media import Media, MediaStatus

router = APIRouter(prefix="/api/media", tags=["media"])

_UNKNOWN_TYPE = "application/octet-stream"

_HARMLESS = {
    # Strangers chose the content, type and name, so a browser must not show the file as one of our pages.
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def _find(id: str, files: MediaFiles) -> Media:  # noqa: A002 - the name in the path
    id_ = parse_uuid(id)
    media = id_ and await files.get(id_)
    if not media:
        raise NotFoundError("media_not_found", "File not found")
    if media.status is not MediaStatus.STORED or media.digest is None:
        detail = f"It could not be fetched: {media.reason}" if media.reason else "It was not fetched yet"
        raise ConflictError("media_not_stored", detail)
    return media


@router.get(
    "/{id}",
    summary="Get a file of an inbound message",
    response_class=Response,
    responses={
        200: {"description": "The file", "content": {_UNKNOWN_TYPE: {"schema": {"type": "string"}}}},
        206: {"description": "The requested range of the file"},
        304: {"description": "The client has the file already"},
        **problems(
            401,
            "media_not_found",
            "media_not_stored",
            "media_gone",
            "range_not_satisfiable",
            503,
            "media_store_unavailable",
        ),
    },
)
async def get_media(
    media: Annotated[Media, Depends(_find)],
    store: MediaStoreDep,
    range: Annotated[str | None, Header(include_in_schema=False)] = None,  # noqa: A002 - the header
    if_range: Annotated[str | None, Header(include_in_schema=False)] = None,
    if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Return the bytes as the provider delivered them, always as a download."""
    digest = media.digest or ""
    etag = f'"{digest}"'
    headers = {**_HARMLESS, "ETag": etag, "Cache-Control": "private, max-age=86400", "Accept-Ranges": "bytes"}
    if if_none_match and (if_none_match.strip() == "*" or etag in if_none_match):
        return Response(status_code=304, headers=headers)
    size = None if store is None else await store.size_of(digest)
    if store is None or size is None:
        raise ProblemError(410, "media_gone", "The file is no longer in the store")
    headers["Content-Disposition"] = _disposition(media)
    try:
        part = parse_range(range, size) if if_range in (None, etag) else None
    except UnsatisfiableRangeError as exc:
        raise ProblemError(
            416,
            "range_not_satisfiable",
            "The requested range is beyond the end of the file",
            headers={"Content-Range": f"bytes */{size}"},
        ) from exc
    start, end = part or (0, size)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    headers["Content-Type"] = media.content_type or _UNKNOWN_TYPE
    if size == 0:
        return Response(headers=headers)
    return StreamingResponse(
        store.read(digest, start, end), status_code=206 if part else 200, headers=headers
    )


def _disposition(media: Media) -> str:
    """Return the header with the name of the file (RFC 6266), whatever characters that has."""
    extension = mimetypes.guess_extension(media.content_type or "") or ""
    name = media.filename or f"attachment{extension}"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_. ") else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
