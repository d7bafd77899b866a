"""Puts the sender together: it talks to NATS and to providers, and to nothing else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

from fastapi import FastAPI

from services.sender.event_publisher import EventPublisher
from services.sender.attachments import fetching
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.delivery import Deliverer, Policy
from shared.providers.base import Provider
from shared.providers.http import make_client
from services.sender.provider_client import Route
from services.sender.provider_selection import Routes, chosen_providers, make_routes
from services.sender.settings import SenderSettings
from services.sender.worker import Worker
from shared.bus.client import connect
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.publisher import publishing
from shared.suppressions import SuppressionList
from shared.ledger import Ledger
from shared.service import health_router
from shared.settings import Settings, load
from shared.observability.tracing import exporting


def create_app(settings: SenderSettings) -> FastAPI:
    """Make the application whose lifespan is the worker's.

    Ends the program with a line if the settings of a provider are missing.

    Raises:
        RoutingError: the settings name providers that cannot be had.
    """
    providers = [
        (provider, load(provider.settings, program="sender"))
        for provider in chosen_providers(settings).values()
    ]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(exporting("sender"))
            bus = await stack.enter_async_context(connect(settings.nats_url, name="sender"))
            publisher = await stack.enter_async_context(publishing(bus))
            routes = await _make_routes(settings, providers, stack)
            policy = Policy(delays=settings.delays, on_ambiguous=settings.on_ambiguous)
            deliverer = Deliverer(
                Ledger(bus, publisher), SuppressionList(bus, publisher), EventPublisher(publisher), routes, policy
            )
            worker = Worker(bus, deliverer, DeadLetterPublisher(publisher, "sender"))

            app.include_router(health_router(worker.what_is_missing))
            worker.start()
            stack.push_async_callback(worker.stop)
            yield

    return FastAPI(title="Sender", lifespan=lifespan, openapi_url=None)


async def _make_routes(
    settings: SenderSettings, providers: list[tuple[type[Provider], Settings]], stack: AsyncExitStack
) -> Routes:
    fetch = await stack.enter_async_context(fetching(allow_private=settings.allow_private_attachments))
    routes = {}
    for kind, own in providers:
        client = await stack.enter_async_context(make_client(timeout=settings.provider_timeout))
        limits = settings.limits(kind.channel)
        routes[kind.name] = Route(kind(client, own), _breaker(settings), limits, fetch)
    return make_routes(settings, routes)


def _breaker(settings: SenderSettings) -> CircuitBreaker:
    return CircuitBreaker(
        failures=settings.breaker_failures,
        pause=timedelta(seconds=settings.breaker_pause),
        clock=lambda: datetime.now(UTC),
    )
