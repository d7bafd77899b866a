"""The handler of events, which stores batches and dead-letters the events that can never be stored."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from services.ingest.bounces import BounceHandler
from services.ingest.projection import Projection, project
from services.ingest.repository import Repository
from shared.bus import lines
from shared.bus.consumer import Done, HandBack, Outcome, StreamMessage
from shared.bus.dead_letters import DeadLetterPublisher
from shared.errors import BadMessageError, UnavailableError
from shared.events import Event, EventType, decode
from shared.message import IncomingReceipt
from shared.observability import tracing
from shared.observability.metrics import PERSIST_SECONDS, PERSISTED

_log = structlog.get_logger()


_MAX_STORED = 500
"""The maximum number of events in a transaction."""


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A line of a message, which contains one event; most messages have only one line."""

    stream_message: StreamMessage
    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Readable:
    line: _Line
    event: Event[Any]
    projection: Projection


@dataclass(frozen=True, slots=True)
class _Bad:
    line: _Line
    error: BadMessageError


class EventHandler:
    """Stores events; raises UnavailableError while the database or the bus is not available.

    Args:
        repository: stores them.
        dead_letters: publishes those that can never be stored.
        bounces: handles those that are bounces.
        on_stored: is called after each transaction.
    """

    def __init__(
        self,
        repository: Repository,
        dead_letters: DeadLetterPublisher,
        bounces: BounceHandler,
        on_stored: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._dead_letters = dead_letters
        self._bounces = bounces
        self._on_stored = on_stored

    async def __call__(self, batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        stream = batch[0].origin.stream
        contexts = (each.headers for each in batch)
        with tracing.processing_batch(stream, contexts, len(batch)):
            stored = await self._handle(stream, batch)
            outcomes = await self._handle_bounces(stored)
        return [outcomes.get(each.origin.sequence, Done()) for each in batch]

    async def _handle_bounces(self, stored: Sequence[_Readable]) -> Mapping[int, Outcome]:
        """Handle the bounces among some events, and return the messages that have to be read again."""
        bounces = [
            (each.line.stream_message, each.event)
            for each in stored
            if isinstance(each.event.data, IncomingReceipt) and each.event.data.is_bounce
        ]
        outcomes = await asyncio.gather(*(self._bounces(event, read) for read, event in bounces))
        # A message with several bounces is read again if any of them has to be.
        again = [
            (read.origin.sequence, outcome)
            for (read, _), outcome in zip(bounces, outcomes, strict=True)
            if isinstance(outcome, HandBack)
        ]
        return dict(again)

    async def _handle(self, stream: str, batch: Sequence[StreamMessage]) -> Sequence[_Readable]:
        """Store the events of a batch, and return those that are stored."""
        results = [_read(line) for each in batch for line in _lines(each)]
        readable = [result for result in results if isinstance(result, _Readable)]
        bad = [result for result in results if isinstance(result, _Bad)]
        for first in range(0, len(readable), _MAX_STORED):
            with PERSIST_SECONDS.time():
                bad += await self._store(readable[first : first + _MAX_STORED])
        await asyncio.gather(*(self._dead_letter(each) for each in bad))
        PERSISTED.labels(stream).inc(len(results) - len(bad))
        dead_lettered = {each.line for each in bad}
        stored = [each for each in readable if each.line not in dead_lettered]
        _log_stored(stream, [each.event for each in stored])
        return stored

    async def _store(self, batch: Sequence[_Readable]) -> list[_Bad]:
        """Store the events, and return those that the database will never accept.

        One such event is enough for the database to reject a batch. The batch is therefore halved until the
        event is alone.

        Raises:
            UnavailableError: the database is not available.
        """
        if not batch:
            return []
        try:
            await self._repository.store([each.projection for each in batch])
        except UnavailableError:
            raise
        except Exception as exc:  # noqa: BLE001 - a bug in our code must not block the stream
            if len(batch) == 1:
                return [_Bad(batch[0].line, _reason(exc))]
            half = len(batch) // 2
            return await self._store(batch[:half]) + await self._store(batch[half:])
        self._on_stored()
        return []

    async def _dead_letter(self, bad: _Bad) -> None:
        line, message = bad.line, bad.line.stream_message
        await self._dead_letters.publish(
            line.payload, bad.error, message.origin, at=message.stored_at, line=line.number
        )


def _lines(stream_message: StreamMessage) -> Iterator[_Line]:
    for number, payload in enumerate(lines.split(stream_message.payload)):
        yield _Line(stream_message, number, payload)


def _read(line: _Line) -> _Readable | _Bad:
    try:
        event = decode(line.payload)
        return _Readable(line, event, project(event))
    except Exception as exc:  # noqa: BLE001 - a bug in our code must not block the stream
        return _Bad(line, _reason(exc))


def _log_stored(stream: str, stored: Sequence[Event[Any]]) -> None:
    """Log one line for the batch, with the ids by which each event can be found.

    The subject of a receipt is the provider's id, since the message need not be known yet.
    """
    receipts = [event.subject for event in stored if event.type is EventType.RECEIPT_RECEIVED]
    others = dict.fromkeys(event.subject for event in stored if event.type is not EventType.RECEIPT_RECEIVED)
    _log.info("stored", stream=stream, message_ids=list(others), provider_message_ids=receipts)


def _reason(error: Exception) -> BadMessageError:
    if isinstance(error, BadMessageError):
        return error
    _log.error("event_handler_failed", exc_info=error)
    return BadMessageError("handler_failed", repr(error))
