"""The worker of ingest, which runs its consumers."""

import asyncio

from services.ingest.advisories import AdvisoryHandler
from services.ingest.bounces import BounceHandler
from services.ingest.handlers import EventHandler
from services.ingest.outbox import Outbox
from services.ingest.repository import Repository
from shared import supervision
from shared.bus.client import Bus
from shared.bus.consumer import ConsumerLoop
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.lag import watch_lag
from shared.bus.losses import LossCounter
from shared.bus.publisher import Publisher
from shared.bus.streams import Streams
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import ADVISORY_CONSUMER, INGEST_CONSUMERS
from shared.errors import DatabaseUnavailableError
from shared.observability.metrics import PERSISTED

_EVENT_BATCH = 500
_LINGER = 0.1
"""Seconds. A transaction costs as much as 40 of the events in it."""

_ADVISORY_BATCH = 20
_DRAIN_SECONDS = 8
_CANCEL_SECONDS = 1
_CHECK_SECONDS = 3


class Worker:
    """Reads each stream whose events are stored in PostgreSQL, and the advisories, in a loop of its own.

    Another task publishes the notifications that follow from what was stored.
    """

    def __init__(self, bus: Bus, repository: Repository, publisher: Publisher, outbox: Outbox) -> None:
        self._repository = repository
        self._outbox = outbox
        self._streams = Streams(bus)
        dead_letters = DeadLetterPublisher(publisher, "ingest")
        bounces = BounceHandler(repository, SuppressionList(bus, publisher))
        events = EventHandler(repository, dead_letters, bounces, outbox.wake)
        advisories = AdvisoryHandler(self._streams, dead_letters)
        self._loops = [
            *(
                ConsumerLoop(
                    bus,
                    consumer,
                    events,
                    batch=_EVENT_BATCH,
                    linger=_LINGER,
                    before_fetch=LossCounter(self._streams, consumer).check,
                )
                for consumer in INGEST_CONSUMERS
            ),
            ConsumerLoop(bus, ADVISORY_CONSUMER, advisories, batch=_ADVISORY_BATCH),
        ]
        self._running: list[asyncio.Task[None]] = []
        for consumer in INGEST_CONSUMERS:
            PERSISTED.labels(consumer.stream)  # exports 0 from the start, instead of nothing

    def start(self) -> None:
        self._running = [supervision.supervise(loop.name, loop.run()) for loop in self._loops]
        consumers = (*INGEST_CONSUMERS, ADVISORY_CONSUMER)
        self._publishing = supervision.supervise("outbox", self._outbox.run())
        self._watch = supervision.supervise("lag", watch_lag(self._streams, lambda: consumers))

    async def stop(self) -> None:
        """Finish the batches in progress within 8 seconds; the others are delivered again."""
        supervision.release(self._watch).cancel()
        for loop in self._loops:
            loop.stop()
        _, late = await asyncio.wait(self._running, timeout=_DRAIN_SECONDS)
        for task in late:
            supervision.release(task).cancel()
        publishing = supervision.release(self._publishing)
        publishing.cancel()
        await asyncio.wait({*late, publishing}, timeout=_CANCEL_SECONDS)

    async def unready_reason(self) -> str | None:
        """Return the reason why events cannot be stored, or None if they can."""
        reason = await self._streams.unready_reason((*INGEST_CONSUMERS, ADVISORY_CONSUMER))
        return reason or await self._database_problem()

    async def _database_problem(self) -> str | None:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._repository.check()
        except DatabaseUnavailableError as exc:
            return f"PostgreSQL: {exc}"
        except TimeoutError:
            return "PostgreSQL: no answer"
        return None
