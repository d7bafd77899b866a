"""Assembles the notifier, which sends events to applications as signed webhooks."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from fastapi import FastAPI

from services.notifier.bodies import Bodies
from services.notifier.deliverer import Deliverer
from services.notifier.disabling import Disabling
from services.notifier.endpoint_client import make_endpoint_client
from services.notifier.failures import Failures
from services.notifier.registry import Registry
from services.notifier.rendering import render
from services.notifier.settings import NotifierSettings
from services.notifier.worker import Worker
from shared import supervision
from shared.bus.client import connect
from shared.bus.probe import BucketProbe
from shared.bus.publisher import publishing
from shared.bus.topology import WEBHOOK_POSITIONS_BUCKET
from shared.bus.webhook_endpoints import EndpointStore
from shared.bus.webhook_positions import PositionStore
from shared.db.engine import connecting
from shared.db.reader import Reader
from shared.errors import DatabaseUnavailableError
from shared.observability.tracing import exporting
from shared.service import health_router

_POOL_SIZE = 4


def create_app(settings: NotifierSettings) -> FastAPI:
    """Create the application; the worker runs during its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(exporting("notifier"))
            engine = await stack.enter_async_context(
                connecting(settings, pool_size=_POOL_SIZE, application="notifier")
            )
            bus = await stack.enter_async_context(connect(settings.nats_url, name="notifier"))
            publisher = await stack.enter_async_context(publishing(bus))
            client = await stack.enter_async_context(
                make_endpoint_client(
                    timeout=settings.webhook_timeout, allow_private=settings.allow_private_webhooks
                )
            )
            reader, store = Reader(engine), EndpointStore(bus, publisher)
            deliverer = Deliverer(
                client,
                Bodies(partial(render, reader)),
                settings.webhook_endpoint_key,
                publisher,
                Disabling(store, publisher, Failures(reader).since, _now),
                settings.delays,
                _now,
            )
            worker = Worker(bus, Registry(bus, store), deliverer, PositionStore(bus, publisher))
            probe = BucketProbe(bus, publisher, WEBHOOK_POSITIONS_BUCKET)

            async def unready_reason() -> str | None:
                return probe.unready_reason or worker.unready_reason() or await _database_problem(reader)

            app.include_router(health_router(unready_reason))
            await stack.enter_async_context(supervision.running("probe", probe.run()))
            worker.start()
            stack.push_async_callback(worker.stop)
            yield

    return FastAPI(title="Notifier", lifespan=lifespan, openapi_url=None)


async def _database_problem(reader: Reader) -> str | None:
    try:
        await reader.ping()
    except DatabaseUnavailableError as exc:
        return f"PostgreSQL: {exc}"
    return None


def _now() -> datetime:
    return datetime.now(UTC)
