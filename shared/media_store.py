"""The store for the bytes of media: a folder, or a bucket of an S3-compatible store.

The bytes are stored under their SHA-256, so that equal files are stored once. Beside them is a record of each
file that was fetched from a provider, which lets a replay recognise that it has nothing to fetch.

    sha256/ab/abcdef…     the bytes
    media/<id>.json       the record of a file
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store
from pydantic import ValidationError

from shared.errors import MediaStoreUnavailableError
from shared.ids import MediaId
from shared.media import Media
from shared.settings import MediaSettings, SettingsError

if TYPE_CHECKING:
    from obstore.store import S3Config

_S3 = "s3://"
_TIMEOUT = timedelta(seconds=10)
_CONNECT_TIMEOUT = timedelta(seconds=5)
"""Kept short, so that a store that is not available is reported soon; callers try again."""

_CHUNK = 256 * 1024


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


class MediaStore:
    """A store; its methods raise MediaStoreUnavailableError.

    Args:
        store: the folder or the bucket.
        folder: the path of the folder.
    """

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def put(self, digest: str, content: bytes) -> None:
        """Store bytes. If they are there already, their age is reset."""
        await self._put(_path_of(digest), content)

    async def size_of(self, digest: str) -> int | None:
        """Return the number of bytes with a digest, or None if they are not there."""
        with _translating():
            try:
                return (await self._store.head_async(_path_of(digest)))["size"]
            except FileNotFoundError:
                return None

    async def read(self, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `end` (exclusive) of a file that is there."""
        with _translating():
            found = await self._store.get_async(_path_of(digest), options={"range": (start, end)})
            async for chunk in found.stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    async def record(self, id_: MediaId) -> Media | None:
        """Return the record of a file, or None if it was not stored."""
        with _translating():
            try:
                found = await self._store.get_async(_record_path_of(id_))
            except FileNotFoundError:
                return None
            content = bytes(await found.bytes_async())
        try:
            return Media.model_validate_json(content)
        except ValidationError:
            return None  # the file is fetched again, as if there were no record

    async def put_record(self, media: Media) -> None:
        """Record that a file was stored."""
        await self._put(_record_path_of(media.id), media.model_dump_json().encode())

    async def _put(self, path: str, content: bytes) -> None:
        with _translating():
            await self._store.put_async(path, content)
        await self._sync(path)

    async def _sync(self, path: str) -> None:
        """Flush a file in a folder to disk, so that it survives a power failure."""
        if self._folder is not None:
            with _translating():
                await asyncio.to_thread(_sync, self._folder / path)


def open_store(settings: MediaSettings) -> MediaStore | None:
    """Open the store, or return None if none is configured. The folder is created if it is missing.

    Raises:
        SettingsError: it cannot be opened.
    """
    if settings.media_store is None:
        return None
    try:
        if settings.media_store.startswith(_S3):
            return MediaStore(_s3(settings.media_store, settings))
        folder = Path(settings.media_store).expanduser().resolve()
        return MediaStore(LocalStore(folder, mkdir=True), folder)
    except (BaseError, OSError, ValueError) as exc:
        raise SettingsError(f"MEDIA_STORE cannot be used: {str(exc).partition(chr(10))[0]}") from exc


def _s3(url: str, settings: MediaSettings) -> S3Store:
    endpoint = settings.media_store_endpoint
    key, secret = settings.media_store_access_key_id, settings.media_store_secret_access_key
    config: S3Config = {"region": settings.media_store_region}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if key and secret:
        config["access_key_id"] = key.get_secret_value()
        config["secret_access_key"] = secret.get_secret_value()
    return S3Store.from_url(
        url,
        config=config,
        client_options={
            "timeout": _TIMEOUT,
            "connect_timeout": _CONNECT_TIMEOUT,
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
        },
        retry_config={"max_retries": 2, "retry_timeout": _CONNECT_TIMEOUT},
    )


def _path_of(digest: str) -> str:
    return f"sha256/{digest[:2]}/{digest}"


def _record_path_of(id_: MediaId) -> str:
    return f"media/{id_}.json"


def _sync(path: Path) -> None:
    for each in (path, path.parent, path.parent.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as exc:
        # The other lines have the details of the request.
        reason = str(exc).strip().partition("\n")[0]
        raise MediaStoreUnavailableError(f"the media store: {reason[:300]}") from exc
