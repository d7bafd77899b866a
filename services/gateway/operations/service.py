"""Collects the backlogs of the consumers, and the reports of the senders on their providers."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from pydantic import ValidationError

from services.gateway.operations.schemas import (
    ConsumerResponse,
    OperationsResponse,
    ProviderResponse,
    SendingLimitResponse,
)
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
from shared.provider_states import ProviderCondition, ProviderState, SenderReport, SendingLimit

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
        reports = await self._reports()
        return OperationsResponse(
            consumers=responses,
            providers=_providers(chain.from_iterable(report.providers for report in reports)),
            sending_limits=_limits(chain.from_iterable(report.limits for report in reports)),
        )

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

    async def _reports(self) -> Sequence[SenderReport]:
        answer = await self._bus.next_messages(
            f"KV_{LIMITS_BUCKET}", 1, count=_MAX_REPORTS, subject=REPORTS_SUBJECT
        )
        return [report for message in answer.messages if (report := _read(message.payload))]


def _read(payload: bytes) -> SenderReport | None:
    """Return a report, or None if a later release has written it."""
    try:
        return SenderReport.model_validate_json(payload)
    except ValidationError:
        return None


def _providers(states: Iterable[ProviderState]) -> list[ProviderResponse]:
    by_name: dict[str, list[ProviderState]] = defaultdict(list)
    for state in states:
        by_name[state.name].append(state)
    return [_combine(states) for _, states in sorted(by_name.items())]


def _limits(limits: Iterable[SendingLimit]) -> list[SendingLimitResponse]:
    """Return the limits, which only differ between processes while these are being restarted."""
    by_name = {limit.name: SendingLimitResponse(**limit.model_dump()) for limit in limits}
    return [limit for _, limit in sorted(by_name.items())]


def _combine(states: Sequence[ProviderState]) -> ProviderResponse:
    worst = max(states, key=lambda state: _WORST_LAST.index(state.state))
    return ProviderResponse(
        **worst.model_dump(exclude={"in_progress", "concurrency", "paused_senders"}),
        in_progress=sum(state.in_progress for state in states),
        concurrency=sum(state.concurrency for state in states),
        paused_senders=max(state.paused_senders for state in states),
        processes=len(states),
    )
