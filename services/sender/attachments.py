"""Fetches the attachments of a message, for providers that take files rather than URLs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from shared.downloads import TOO_LARGE, Downloader, downloading
from shared.providers.base import File, RejectedError, TemporaryError
from shared.public_addresses import LookUp, look_up

MAX_BYTES = 10 * 1024 * 1024
"""For all attachments of a message. Base64 adds a third, which is as much as mail servers usually accept."""

TIME_LIMIT = 10.0
"""Seconds for all attachments of a message; the rest of the attempt is for the provider."""


class Fetch(Protocol):
    """A function that fetches attachments."""

    async def __call__(self, urls: Sequence[str], max_bytes: int = MAX_BYTES) -> Sequence[File]:
        """Return the files at some URLs, which have at most this many bytes together.

        Raises:
            RejectedError: they are larger, with the code `TOO_LARGE`, or cannot be used.
            TemporaryError: they are not available at the moment.
        """


@asynccontextmanager
async def fetching(*, allow_private: bool = False, look_up: LookUp = look_up) -> AsyncIterator[Fetch]:
    """Provide the function that fetches attachments; see `downloading` for the arguments."""
    async with downloading(allow_private=allow_private, look_up=look_up) as downloader:
        yield _Fetcher(downloader).fetch


class _Fetcher:
    def __init__(self, downloader: Downloader) -> None:
        self._downloader = downloader

    async def fetch(self, urls: Sequence[str], max_bytes: int = MAX_BYTES) -> Sequence[File]:
        files: list[File] = []
        remaining = max_bytes
        try:
            async with asyncio.timeout(TIME_LIMIT):
                for url in urls:
                    files.append(await self._downloader.download(url, remaining))
                    remaining -= len(files[-1].content)
        except TimeoutError as exc:
            raise TemporaryError("attachment_timeout", "the attachments were not fetched in time") from exc
        except RejectedError as exc:
            if exc.code == TOO_LARGE:
                detail = f"the attachments are larger than {MAX_BYTES} bytes"
                raise RejectedError(TOO_LARGE, detail) from exc
            raise
        return files
