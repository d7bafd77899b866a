"""What ingest does with a batch of deliveries: store what can be stored, and give up what never can."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.ingest.repository import Repository
from services.ingest.projection import Rows, rows_of
from shared.observability import tracing
from shared.bus.consumer import StreamMessage, Done, Outcome
from shared.bus.dead_letters import DeadLetterPublisher
from shared.errors import BadMessageError, NotNowError
from shared.events import decode
from shared.observability.metrics import PERSIST_SECONDS, PERSISTED

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Readable:
    delivery: StreamMessage
    subject: str
    rows: Rows


@dataclass(frozen=True, slots=True)
class _Bad:
    delivery: StreamMessage
    error: BadMessageError


class IngestHandler:
    """Stores deliveries; raises NotNowError while the database or the bus is away."""

    def __init__(self, repository: Repository, dead_letters: DeadLetterPublisher) -> None:
        self._repository = repository
        self._dead_letters = dead_letters

    async def __call__(self, deliveries: Sequence[StreamMessage]) -> Sequence[Outcome]:
        stream = deliveries[0].origin.stream
        contexts = (delivery.headers for delivery in deliveries)
        with tracing.processing_batch(stream, contexts, len(deliveries)):
            await self._handle(stream, deliveries)
        return [Done()] * len(deliveries)

    async def _handle(self, stream: str, deliveries: Sequence[StreamMessage]) -> None:
        readings = [_read(delivery) for delivery in deliveries]
        readable = [reading for reading in readings if isinstance(reading, _Readable)]
        bad = [reading for reading in readings if isinstance(reading, _Bad)]
        with PERSIST_SECONDS.time():
            bad += await self._store(readable)
        await asyncio.gather(
            *(
                self._dead_letters.publish(
                    item.delivery.payload, item.error, item.delivery.origin, at=item.delivery.stored_at
                )
                for item in bad
            )
        )
        PERSISTED.labels(stream).inc(len(deliveries) - len(bad))
        given_up = {item.delivery.origin.sequence for item in bad}
        _log_stored(stream, [item for item in readable if item.delivery.origin.sequence not in given_up])

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


def _read(delivery: StreamMessage) -> _Readable | _Bad:
    try:
        event = decode(delivery.payload)
        return _Readable(delivery, event.subject, rows_of(event))
    except Exception as exc:  # noqa: BLE001 - see `_store`
        return _Bad(delivery, _reason(exc))


def _log_stored(stream: str, stored: Sequence[_Readable]) -> None:
    """Log one line for all of them, by which each can be found. Of a receipt only the provider knows more."""
    messages = dict.fromkeys(item.subject for item in stored if item.rows.receipt is None)
    receipts = [item.subject for item in stored if item.rows.receipt is not None]
    _log.info("stored", stream=stream, message_ids=list(messages), provider_message_ids=receipts)


def _reason(error: Exception) -> BadMessageError:
    if isinstance(error, BadMessageError):
        return error
    _log.error("event_handler_failed", exc_info=error)
    return BadMessageError("handler_failed", repr(error))
