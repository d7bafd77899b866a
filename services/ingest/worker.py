"""Runs the consumers of ingest."""

import asyncio

from services.ingest.handlers import IngestHandler
from services.ingest.repository import Repository
from services.ingest.advisories import AdvisoryHandler
from shared.bus.client import Bus
from shared.bus.consumer import ConsumerLoop
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.lag import watch_lag
from shared.bus.publisher import Publisher
from shared.bus.streams import Streams
from shared.bus.topology import ADVISORY_CONSUMER, INGEST_CONSUMERS
from shared.errors import DatabaseUnavailableError
from shared.observability.metrics import PERSISTED

_BATCH = 500
_SWEEP_BATCH = 20
_DRAIN_SECONDS = 8
_CANCEL_SECONDS = 1
_CHECK_SECONDS = 3


class Worker:
    """Reads every stream that ends in PostgreSQL, each in a loop of its own, and what the server gave up."""

    def __init__(self, bus: Bus, repository: Repository, publisher: Publisher) -> None:
        self._repository = repository
        self._streams = Streams(bus)
        dead_letters = DeadLetterPublisher(publisher, "ingest")
        handler = IngestHandler(repository, dead_letters)
        sweeper = AdvisoryHandler(self._streams, dead_letters)
        self._loops = [
            *(ConsumerLoop(bus, consumer, handler, batch=_BATCH) for consumer in INGEST_CONSUMERS),
            ConsumerLoop(bus, ADVISORY_CONSUMER, sweeper, batch=_SWEEP_BATCH),
        ]
        self._running: list[asyncio.Task[None]] = []
        for consumer in INGEST_CONSUMERS:
            PERSISTED.labels(consumer.stream)  # is 0 from now on, where it would be missing

    def start(self) -> None:
        self._running = [asyncio.create_task(loop.run()) for loop in self._loops]
        self._watch = asyncio.create_task(watch_lag(self._streams, (*INGEST_CONSUMERS, ADVISORY_CONSUMER)))

    async def stop(self) -> None:
        """Finish the batches that are being stored, within 8 seconds; what is left comes again."""
        self._watch.cancel()
        for loop in self._loops:
            loop.stop()
        _, late = await asyncio.wait(self._running, timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)

    async def what_is_missing(self) -> str | None:
        """Tell what keeps us from storing, or None."""
        missing = await self._streams.what_is_missing(INGEST_CONSUMERS[0])
        return missing or await self._what_the_database_lacks()

    async def _what_the_database_lacks(self) -> str | None:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._repository.check()
        except DatabaseUnavailableError as exc:
            return f"PostgreSQL: {exc}"
        except TimeoutError:
            return "PostgreSQL: no answer"
        return None
