"""Assembles the sender, which communicates only with NATS and with the providers."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from fastapi import FastAPI

from services.sender.attachment_limits import AttachmentLimits
from services.sender.attachments import fetching
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.clock import ServerClock
from services.sender.delivery import Deliverer
from services.sender.event_publisher import EventPublisher
from services.sender.gate import Gate
from services.sender.limits import Limiter
from services.sender.media import MediaFetcher
from services.sender.pauses import Pauses
from services.sender.provider_client import ProviderClient
from services.sender.provider_selection import ProviderSelection, create_adapters, create_selection
from services.sender.reporter import Reporter
from services.sender.schedule import Limit, Schedules
from services.sender.settings import SenderSettings
from services.sender.worker import Worker
from shared import supervision
from shared.bus.client import Bus, connect
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.lag import watch_lag
from shared.bus.probe import BucketProbe
from shared.bus.publisher import Publisher, publishing
from shared.bus.streams import Streams
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import LIMITS_BUCKET, MEDIA_CONSUMER, sender_delayed
from shared.channels import Channel
from shared.downloads import downloading
from shared.ledger import Ledger
from shared.lifecycle.policy import DeliveryPolicy
from shared.media_store import MediaStore, open_store
from shared.observability.tracing import exporting
from shared.provider_states import SenderReport, SendingLimit
from shared.providers.base import Adapter, MediaCredentials
from shared.providers.http import make_client
from shared.providers.registry import PROVIDERS, media_credentials, opt_out_groups
from shared.service import health_router

_log = structlog.get_logger()

_MEDIA_SECONDS = 1.0
"""How long files may still be fetched when the sender stops; the others are fetched by another process."""


def create_app(settings: SenderSettings) -> FastAPI:
    """Create the application; its lifespan is that of the worker.

    Raises:
        SettingsError: some settings of a chosen provider are missing or invalid.
    """
    adapters = create_adapters(settings)
    store = open_store(settings)
    credentials = media_credentials()
    if store is None:
        _log.warning("media_not_kept", missing="MEDIA_STORE", consequence="files of inbound messages expire")
    groups = {name: group for name, group in opt_out_groups().items() if name in adapters}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(exporting("sender"))
            bus = await stack.enter_async_context(connect(settings.nats_url, name="sender"))
            publisher = await stack.enter_async_context(publishing(bus))
            clock = ServerClock()
            pauses = Pauses(bus, publisher, clock=clock.timestamp)
            schedules = Schedules(bus, publisher, clock=clock.timestamp)
            providers = await _create_providers(settings, adapters, stack, schedules, pauses)
            deliverer = Deliverer(
                Ledger(bus, publisher),
                SuppressionList(bus, publisher, groups),
                EventPublisher(publisher),
                providers,
                DeliveryPolicy(delays=settings.delays, on_ambiguous=settings.on_ambiguous),
                clock.now,
            )
            worker = Worker(bus, deliverer, DeadLetterPublisher(publisher, "sender"))
            probe = BucketProbe(bus, publisher, LIMITS_BUCKET)
            limits = _sending_limits(settings)

            def report() -> SenderReport:
                return SenderReport(providers=tuple(providers.states(clock.now())), limits=limits)

            async def unready_reason() -> str | None:
                return probe.unready_reason or await worker.unready_reason()

            app.include_router(health_router(unready_reason))
            for name, loop in (
                ("probe", probe.run()),
                ("clock", clock.run(bus, sender_delayed(Channel.SMS))),
                ("pauses", _follow(pauses, clock)),
                ("reporter", Reporter(publisher, report).run()),
            ):
                await stack.enter_async_context(supervision.running(name, loop))
            worker.start()
            stack.push_async_callback(worker.stop)
            if store is not None:
                await stack.enter_async_context(_fetching_media(settings, store, credentials, bus, publisher))
            yield

    return FastAPI(title="Sender", lifespan=lifespan, openapi_url=None)


@asynccontextmanager
async def _fetching_media(
    settings: SenderSettings,
    store: MediaStore,
    credentials: Mapping[str, MediaCredentials],
    bus: Bus,
    publisher: Publisher,
) -> AsyncIterator[None]:
    """Fetch the media of inbound messages during the block."""
    async with downloading(allow_private=settings.allow_private_attachments) as downloader:
        fetcher = MediaFetcher(
            store,
            publisher,
            downloader,
            credentials,
            max_file=settings.media_max_file_bytes,
            max_message=settings.media_max_message_bytes,
        )
        reader = fetcher.reader(bus)
        reading = supervision.supervise(f"reader of {MEDIA_CONSUMER.name}", reader.run())
        lag = supervision.supervise("lag of media", watch_lag(Streams(bus), lambda: [MEDIA_CONSUMER]))
        try:
            yield
        finally:
            supervision.release(lag).cancel()
            reader.stop()
            await asyncio.wait([reading], timeout=_MEDIA_SECONDS)
            supervision.release(reading).cancel()
            await asyncio.wait([reading])


async def _follow(pauses: Pauses, clock: ServerClock) -> None:
    await supervision.patiently(clock.until_known())
    await pauses.run()


async def _create_providers(
    settings: SenderSettings,
    adapters: Mapping[str, Adapter[Any]],
    stack: AsyncExitStack,
    schedules: Schedules,
    pauses: Pauses,
) -> ProviderSelection:
    fetch = await stack.enter_async_context(fetching(allow_private=settings.allow_private_attachments))
    attachment_limits = AttachmentLimits()
    by_sender = _create_gates(settings, schedules)
    clients = {}
    for name, adapter in adapters.items():
        provider = PROVIDERS[name]
        http_client = await stack.enter_async_context(make_client(timeout=settings.provider_timeout))
        rate = settings.rate_of(provider.channel)
        gate = Gate(Limit(f"provider:{name}", rate), schedules, clock=schedules.clock) if rate else None
        clients[name] = ProviderClient(
            provider,
            adapter,
            http_client,
            breaker=_create_breaker(settings),
            limiter=Limiter(settings.concurrency_of(provider.channel), gate, by_sender),
            pauses=pauses,
            fetch=fetch,
            attachment_limits=attachment_limits,
        )
    return create_selection(settings, clients)


def _create_gates(settings: SenderSettings, schedules: Schedules) -> Mapping[str, Sequence[Gate]]:
    """Return the limits of each sending address."""
    gates: dict[str, list[Gate]] = defaultdict(list)
    for name, limit in settings.sender_limits.items():
        gate = Gate(Limit(name, limit.rate, limit.per_day), schedules, clock=schedules.clock)
        for sender in limit.senders:
            gates[sender].append(gate)
    return gates


def _sending_limits(settings: SenderSettings) -> tuple[SendingLimit, ...]:
    return tuple(
        SendingLimit(name=name, senders=limit.senders, rate=limit.rate, per_day=limit.per_day)
        for name, limit in settings.sender_limits.items()
    )


def _create_breaker(settings: SenderSettings) -> CircuitBreaker:
    return CircuitBreaker(failures=settings.breaker_failures, pause=timedelta(seconds=settings.breaker_pause))
