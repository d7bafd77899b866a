"""What ingest does with a batch of deliveries: store what can be stored, and give up what never can."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from services.ingest.dead_letters import DeadLetterOffice
from services.ingest.repository import Repository
from services.ingest.rows import Rows, rows_of
from shared.bus.consumer import Delivery, Done, HandBack, Outcome
from shared.errors import BadMessageError, NotNowError
from shared.events import decode
from shared.metrics import PERSIST_SECONDS, PERSISTED

_log = structlog.get_logger()

_FIRST_PAUSE = timedelta(seconds=0.1)
_LONGEST_PAUSE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class _Readable:
    delivery: Delivery
    rows: Rows


@dataclass(frozen=True, slots=True)
class _Bad:
    delivery: Delivery
    error: BadMessageError


class IngestHandler:
    """Stores deliveries, however long the database may be away.

    Args:
        stopping: once it is set, nobody waits for the database any longer.
        longest_pause: between two tries to reach a database that is away; the first are shorter.
    """

    def __init__(
        self,
        repository: Repository,
        office: DeadLetterOffice,
        stopping: asyncio.Event,
        *,
        longest_pause: timedelta = _LONGEST_PAUSE,
    ) -> None:
        self._repository = repository
        self._office = office
        self._stopping = stopping
        self._longest_pause = longest_pause

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        readings = [_read(delivery) for delivery in deliveries]
        readable = [reading for reading in readings if isinstance(reading, _Readable)]
        bad = [reading for reading in readings if isinstance(reading, _Bad)]
        try:
            with PERSIST_SECONDS.time():
                bad += await self._store(readable)
        except NotNowError:
            return [HandBack()] * len(deliveries)
        outcomes = await self._give_up(bad)
        PERSISTED.labels(deliveries[0].origin.stream).inc(len(deliveries) - len(bad))
        return [outcomes.get(delivery.origin.sequence, Done()) for delivery in deliveries]

    async def _store(self, batch: Sequence[_Readable]) -> list[_Bad]:
        """Store what can be stored, and return what the database will never take.

        One such row is enough to refuse a batch, so that is halved until the culprit is alone.

        Raises:
            NotNowError: the database is away, and we are to stop.
        """
        if not batch:
            return []
        try:
            await self._store_when_possible([reading.rows for reading in batch])
        except NotNowError:
            raise
        except Exception as exc:  # noqa: BLE001 - a mistake of ours must not hold up the stream for ever
            if len(batch) == 1:
                return [_Bad(batch[0].delivery, _reason(exc))]
            half = len(batch) // 2
            return await self._store(batch[:half]) + await self._store(batch[half:])
        return []

    async def _store_when_possible(self, rows: Sequence[Rows]) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(NotNowError),
            wait=wait_random_exponential(_FIRST_PAUSE.total_seconds(), self._longest_pause),
            stop=lambda _: self._stopping.is_set(),
            sleep=self._pause,
            before_sleep=_report,
            reraise=True,
        )
        await retrying(self._repository.store, rows)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _give_up(self, bad: Sequence[_Bad]) -> dict[int, Outcome]:
        """Send all to the dead letters; returns what became of each, by its sequence in the stream."""
        outcomes = await asyncio.gather(
            *(self._office.bury(item.delivery.payload, item.error, item.delivery.origin) for item in bad)
        )
        return {item.delivery.origin.sequence: outcome for item, outcome in zip(bad, outcomes, strict=True)}


def _read(delivery: Delivery) -> _Readable | _Bad:
    try:
        return _Readable(delivery, rows_of(decode(delivery.payload)))
    except Exception as exc:  # noqa: BLE001 - see `_store`
        return _Bad(delivery, _reason(exc))


def _reason(error: Exception) -> BadMessageError:
    if isinstance(error, BadMessageError):
        return error
    _log.error("event_handler_failed", exc_info=error)
    return BadMessageError("handler_failed", repr(error))


def _report(state: RetryCallState) -> None:
    if state.outcome is not None:
        _log.warning("database_unavailable", error=str(state.outcome.exception()))
