"""Media from a provider over HTTP into a store, with a real NATS between them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from services.sender.media import MediaFetcher
from shared.bus import lines
from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import MEDIA_CONSUMER, Stream, inbound_message_subject
from shared.channels import MessageType
from shared.downloads import downloading
from shared.events import decode, message_received
from shared.media import Media, MediaReport
from shared.media_store import MediaStore, open_store
from shared.message import IncomingMessage, Message
from shared.providers.base import MediaCredentials
from shared.settings import MediaSettings
from tests import messages
from tests.stand_in import StandIn, standing_in
from tests.waiting import eventually

SECRET = {"Authorization": "Basic c2VjcmV0"}

RunFetcher = Callable[..., AbstractAsyncContextManager[MediaFetcher]]


@dataclass(frozen=True)
class Inbox:
    """The streams, as the gateway writes to them and ingest reads them."""

    bus: Bus
    publisher: Publisher

    async def receive(self, *urls: str) -> Message:
        """Publish an inbound MMS with files at these URLs."""
        id_ = str(uuid4())
        incoming = IncomingMessage.of(
            provider="twilio",
            provider_message_id=id_,
            from_=messages.address(messages.BOB),
            to=messages.address(messages.ALICE),
            type=MessageType.MMS,
            body="",
            attachments=[*urls],
            timestamp=messages.now(),
            created_at=messages.now(),
            raw={"attachments": []},
        )
        event, message = message_received(incoming), incoming.message
        subject = inbound_message_subject(message.channel, message.conversation_key)
        await self.publisher.publish(Stream.INBOUND, Outgoing(subject, event.id, event.encode()))
        return message

    async def reports(self, message: Message) -> list[Media]:
        """Return the reports on the files of a message, in their order."""
        last = (await self.bus.jetstream.stream_info(Stream.EVENTS)).state.last_seq
        found: list[Media] = []
        for sequence in range(1, last + 1):
            stored = await self.bus.jetstream.get_msg(Stream.EVENTS, sequence)
            for payload in lines.split(stored.data or b""):
                data = decode(payload).data
                if isinstance(data, MediaReport) and data.message_id == message.id:
                    found.append(data.media)
        return sorted(found, key=lambda media: media.position)

    async def until_reported(self, message: Message) -> list[Media]:
        """Wait until there is a report on every file of a message, and return them."""

        async def all_reports() -> Sequence[Media]:
            found = await self.reports(message)
            return found if len(found) >= len(message.media) else []

        return [*await eventually(all_reports)]

    async def until_idle(self) -> None:
        async def nothing_is_left() -> bool:
            info = await self.bus.jetstream.consumer_info(MEDIA_CONSUMER.stream, MEDIA_CONSUMER.name)
            return not (info.num_pending or info.num_ack_pending)

        await eventually(nothing_is_left)


@pytest.fixture
def inbox(bus: Bus, publisher: Publisher) -> Inbox:
    return Inbox(bus, publisher)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest.fixture
def store(folder: Path) -> MediaStore:
    store = open_store(MediaSettings(_env_file=None, media_store=str(folder)))
    assert store
    return store


@pytest.fixture
async def provider() -> AsyncIterator[StandIn]:
    async with standing_in() as stand_in:
        yield stand_in


@pytest.fixture
async def elsewhere() -> AsyncIterator[StandIn]:
    """Run a server of another origin."""
    async with standing_in() as stand_in:
        yield stand_in


@pytest.fixture
def run_fetcher(bus: Bus, publisher: Publisher, store: MediaStore, provider: StandIn) -> RunFetcher:
    """Return a function that runs a fetcher whose credentials are those of `provider`."""

    @asynccontextmanager
    async def run(
        *,
        max_file: int = 1_000,
        max_message: int = 1_500,
        allow_private: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        credentials: Mapping[str, MediaCredentials] | None = None,
    ) -> AsyncIterator[MediaFetcher]:
        async with downloading(allow_private=allow_private) as downloader:
            fetcher = MediaFetcher(
                store,
                publisher,
                downloader,
                {"twilio": MediaCredentials(provider.url, SECRET)} if credentials is None else credentials,
                max_file=max_file,
                max_message=max_message,
                clock=clock,
            )
            reader = fetcher.reader(bus)
            running = asyncio.create_task(reader.run())
            try:
                yield fetcher
            finally:
                reader.stop()
                await asyncio.wait([running], timeout=1)
                running.cancel()
                await asyncio.wait([running])

    return run
