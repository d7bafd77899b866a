"""Collects the backlogs of the consumers, and the reports of the senders on their providers."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

from pydantic import ValidationError

from services.gateway.operations.schemas import ConsumerResponse, OperationsResponse, ProviderResponse
from shared.bus.client import Bus
from shared.bus.streams import Streams
from shared.bus.topology import (
    ADVISORY_CONSUMER,
    INGEST_CONSUMERS,
    LIMITS_BUCKET,
    MEDIA_CONSUMER,
    REPORTS_SUBJECT,
    Consumer,
    Stream,
    sender_delayed,
    shard_named,
)
from shared.channels import Channel
from shared.provider_states import ProviderCondition, ProviderState, SenderReport

_MAX_REPORTS = 1_000
_WORST_LAST = list(ProviderCondition)


class OperationsService:
    """Reports the state of the system; its methods raise BusUnavailableError.

    Args:
        bus: the connection.
        keeps_media: whether the media of inbound messages are fetched.
    """

    def __init__(self, bus: Bus, *, keeps_media: bool) -> None:
        self._bus = bus
        self._media = [MEDIA_CONSUMER] if keeps_media else []
        self._streams = Streams(bus)

    async def get(self) -> OperationsResponse:
        consumers = await self._consumers()
        responses = await asyncio.gather(*(self._backlog(consumer) for consumer in consumers))
        return OperationsResponse(consumers=responses, providers=await self._providers())

    async def _consumers(self) -> Sequence[Consumer]:
        names = sorted(await self._streams.consumers_of(Stream.OUTBOUND))
        shards = (shard_named(name, channel) for channel in Channel for name in names)
        delayed = (sender_delayed(channel) for channel in Channel)
        return [*INGEST_CONSUMERS, ADVISORY_CONSUMER, *self._media, *filter(None, shards), *delayed]

    async def _backlog(self, consumer: Consumer) -> ConsumerResponse:
        lag = await self._streams.lag(consumer)
        return ConsumerResponse(
            stream=consumer.stream,
            name=consumer.name,
            pending=lag.pending if lag else None,
            ack_pending=lag.ack_pending if lag else None,
        )

    async def _providers(self) -> list[ProviderResponse]:
        answer = await self._bus.next_messages(
            f"KV_{LIMITS_BUCKET}", 1, count=_MAX_REPORTS, subject=REPORTS_SUBJECT
        )
        by_name: dict[str, list[ProviderState]] = defaultdict(list)
        for state in chain.from_iterable(_read(message.payload) for message in answer.messages):
            by_name[state.name].append(state)
        return [_combine(states) for _, states in sorted(by_name.items())]


def _read(payload: bytes) -> Sequence[ProviderState]:
    """Return the states in a report, or none if a later release has written it."""
    try:
        return SenderReport.model_validate_json(payload).providers
    except ValidationError:
        return ()


def _combine(states: Sequence[ProviderState]) -> ProviderResponse:
    worst = max(states, key=lambda state: _WORST_LAST.index(state.state))
    return ProviderResponse(
        **worst.model_dump(exclude={"in_progress", "concurrency", "paused_senders"}),
        in_progress=sum(state.in_progress for state in states),
        concurrency=sum(state.concurrency for state in states),
        paused_senders=max(state.paused_senders for state in states),
        processes=len(states),
    )
