"""What ingest does with a batch of deliveries: store what can be stored, and give up what never can."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.ingest.repository import Repository
from services.ingest.rows import Rows, rows_of
from shared.bus.consumer import Delivery, Done, Outcome
from shared.bus.dead_letters import DeadLetterOffice
from shared.errors import BadMessageError, NotNowError
from shared.events import decode
from shared.metrics import PERSIST_SECONDS, PERSISTED

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Readable:
    delivery: Delivery
    rows: Rows


@dataclass(frozen=True, slots=True)
class _Bad:
    delivery: Delivery
    error: BadMessageError


class IngestHandler:
    """Stores deliveries; raises NotNowError while the database or the bus is away."""

    def __init__(self, repository: Repository, office: DeadLetterOffice) -> None:
        self._repository = repository
        self._office = office

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        readings = [_read(delivery) for delivery in deliveries]
        readable = [reading for reading in readings if isinstance(reading, _Readable)]
        bad = [reading for reading in readings if isinstance(reading, _Bad)]
        with PERSIST_SECONDS.time():
            bad += await self._store(readable)
        await asyncio.gather(
            *(self._office.bury(item.delivery.payload, item.error, item.delivery.origin) for item in bad)
        )
        PERSISTED.labels(deliveries[0].origin.stream).inc(len(deliveries) - len(bad))
        return [Done()] * len(deliveries)

    async def _store(self, batch: Sequence[_Readable]) -> list[_Bad]:
        """Store what can be stored, and return what the database will never take.

        One such row is enough to refuse a batch, so that is halved until the culprit is alone.

        Raises:
            NotNowError: the database is away.
        """
        if not batch:
            return []
        try:
            await self._repository.store([reading.rows for reading in batch])
        except NotNowError:
            raise
        except Exception as exc:  # noqa: BLE001 - a mistake of ours must not hold up the stream for ever
            if len(batch) == 1:
                return [_Bad(batch[0].delivery, _reason(exc))]
            half = len(batch) // 2
            return await self._store(batch[:half]) + await self._store(batch[half:])
        return []


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
