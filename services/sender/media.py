"""Fetches the media of inbound messages from their providers, and stores them.

A file is stored first, then its record in the store, then the event about it; only then is the message
acknowledged. A crash in between repeats the rest. If the record is there already, nothing is fetched.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

from services.sender.attachment_limits import AttachmentLimits
from shared.bus.client import Bus
from shared.bus.concurrent import ConcurrentReader
from shared.bus.consumer import Done, HandBack, Outcome, StreamMessage
from shared.bus.processing import Begin
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import MEDIA_CONSUMER, Stream, media_subject
from shared.downloads import TOO_LARGE, Downloader
from shared.errors import BadMessageError, UnavailableError
from shared.events import decode, media_reported
from shared.media import Media, MediaReport, MediaStatus
from shared.media_store import MediaStore, digest_of
from shared.message import IncomingMessage, Message
from shared.observability.metrics import MEDIA
from shared.providers.base import File, MediaCredentials, ProviderError, RejectedError, TemporaryError

_log = structlog.get_logger()

_CAPACITY = 1_024
"""The maximum number of messages in this process, including those whose files wait for a slow host."""

_DOWNLOADS = 12
"""Files that this process fetches, and holds in memory, at the same time."""

_DOWNLOADS_OF_HOST = 4
"""The maximum number of these files from each host, so that a slow host leaves room for the others."""

_PATIENCE = 10.0
"""Seconds that a file waits for its turn before its message is returned, to make room for others."""

_TIME_LIMIT = 30.0
"""The time limit for each file, in seconds."""

_GIVE_UP_AFTER = timedelta(days=1)
_MIN_ATTEMPTS = 4
"""A message that is read late, such as after an outage or in a replay, gets at least this many attempts."""

_DELAYS = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1_800, 3_600, 7_200))
"""The time between one attempt and the next; the last one repeats."""

_FINAL = {TOO_LARGE, "attachment_refused"}
"""The codes of errors that no later attempt can overcome. A provider may answer even 401 or 404 in error: its
credentials are being changed, or the file is not there yet."""

_BUSY = "attachment_host_busy"

_ATTACHMENTS = b'"attachments":'


class MediaFetcher:
    """Fetches the media of messages, several of which may be processed concurrently.

    Args:
        store: keeps the files.
        publisher: publishes the reports.
        downloader: downloads files.
        credentials: those of the providers that need any, by the provider's name.
        max_file: the maximum size of a file, in bytes.
        max_message: the maximum size of all files of a message, in bytes.
        clock: returns the time.
    """

    def __init__(
        self,
        store: MediaStore,
        publisher: Publisher,
        downloader: Downloader,
        credentials: Mapping[str, MediaCredentials],
        *,
        max_file: int,
        max_message: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._downloader = downloader
        self._credentials = credentials
        self._max_file = max_file
        self._max_message = max_message
        self._clock = clock
        self._limits = AttachmentLimits(in_all=_DOWNLOADS, each=_DOWNLOADS_OF_HOST)

    def reader(self, bus: Bus) -> ConcurrentReader:
        """Return the reader that passes messages to this fetcher."""
        return ConcurrentReader(bus, MEDIA_CONSUMER, self.process, capacity=_CAPACITY, keeps_place=False)

    async def process(self, stream_message: StreamMessage, _: Begin) -> Outcome:
        """Fetch the media of a message.

        Raises:
            UnavailableError: the store or NATS is not available. Finished files are not fetched again.
        """
        try:
            return await self._handle(stream_message)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - in the end, the message becomes a dead letter
            _log.exception("media_handler_failed", **stream_message.origin.model_dump())
            return HandBack(_delay_after(stream_message.deliveries))

    async def _handle(self, stream_message: StreamMessage) -> Outcome:
        message = _message_in(stream_message.payload)
        if message is None:
            return Done()
        is_last = self._is_last(stream_message)
        remaining = self._max_message
        are_done = True
        for media in message.media:
            if media.status is MediaStatus.PENDING:
                found = await self._fetched(message, media, remaining, is_last=is_last)
                are_done = are_done and found.status is not MediaStatus.PENDING
                remaining -= found.size or 0
        return Done() if are_done else HandBack(_delay_after(stream_message.deliveries))

    def _is_last(self, message: StreamMessage) -> bool:
        """Return whether files that cannot be fetched now become `failed`."""
        is_old = self._clock() - message.stored_at >= _GIVE_UP_AFTER
        return is_old and message.deliveries >= _MIN_ATTEMPTS

    async def _fetched(self, message: Message, media: Media, remaining: int, *, is_last: bool) -> Media:
        """Fetch a file unless that was done before, and report on it unless it has to be tried again."""
        found = await self._store.record(media.id)
        if found is None:
            found = await self._fetch(message, media, remaining, is_last=is_last)
        if found.status is not MediaStatus.PENDING:
            await self._report(message, found)
        return found

    async def _fetch(self, message: Message, media: Media, remaining: int, *, is_last: bool) -> Media:
        try:
            async with self._place(media):
                return await self._store_file(message, media, await self._download(message, media, remaining))
        except ProviderError as exc:
            # A file that had to wait for others was not tried.
            is_final = exc.code in _FINAL or (is_last and exc.code != _BUSY)
            outcome = "failed" if is_final else "retrying"
            MEDIA.labels(message.provider or "", outcome, exc.code).inc()
            log = _log.bind(
                message_id=str(message.id), media_id=str(media.id), reason=exc.code, detail=str(exc)
            )
            if not is_final:
                log.warning("media_not_fetched")
                return media
            log.warning("media_failed")
            return media.model_copy(update={"status": MediaStatus.FAILED, "reason": exc.code})

    async def _store_file(self, message: Message, media: Media, file: File) -> Media:
        digest = digest_of(file.content)
        stored = media.model_copy(
            update={
                "status": MediaStatus.STORED,
                "content_type": file.type,
                "size": len(file.content),
                "filename": file.name,
                "digest": digest,
            }
        )
        await self._store.put(digest, file.content)
        await self._store.put_record(stored)
        MEDIA.labels(message.provider or "", "stored", "").inc()
        return stored

    @asynccontextmanager
    async def _place(self, media: Media) -> AsyncIterator[None]:
        """Wait for a place for a file, and hold it until the context exits.

        Raises:
            TemporaryError: the files before it take too long.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await stack.enter_async_context(self._limits.place(None, [media.url or ""]))
            except TimeoutError as exc:
                raise TemporaryError(_BUSY, "other files of its host were not fetched in time") from exc
            yield

    async def _download(self, message: Message, media: Media, remaining: int) -> File:
        credentials = self._credentials.get(message.provider or "")
        if remaining <= 0:
            raise RejectedError(TOO_LARGE, "the other files of the message have reached the limit")
        try:
            async with asyncio.timeout(_TIME_LIMIT):
                limit = min(self._max_file, remaining)
                return await self._downloader.download(media.url or "", limit, credentials)
        except TimeoutError as exc:
            raise TemporaryError("attachment_timeout", "the file was not fetched in time") from exc

    async def _report(self, message: Message, media: Media) -> None:
        report = MediaReport(message_id=message.id, channel=message.channel, media=media)
        event = media_reported(report, time=self._clock())
        subject = media_subject(message.channel)
        await self._publisher.publish(Stream.EVENTS, Outgoing(subject, event.id, event.encode()))


def _message_in(payload: bytes) -> Message | None:
    """Return the message in an event if files have to be fetched for it."""
    # The first field of this name is that of the message. Most messages have no files, and are not parsed.
    if payload.partition(_ATTACHMENTS)[2].startswith(b"[]"):
        return None
    try:
        data = decode(payload).data
    except BadMessageError:
        return None  # ingest dead-letters it
    return data.message if isinstance(data, IncomingMessage) else None


def _delay_after(attempts: int) -> timedelta:
    return _DELAYS[min(attempts, len(_DELAYS)) - 1]
