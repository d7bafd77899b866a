"""The application of ingest, the only service that writes to PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from services.ingest.attempt_retention import keep_deleting_old_attempts
from services.ingest.outbox import Outbox
from services.ingest.repository import Repository
from services.ingest.settings import IngestSettings
from services.ingest.worker import Worker
from shared import supervision
from shared.bus.client import connect
from shared.bus.probe import Probe
from shared.bus.publisher import publishing
from shared.bus.topology import INGEST_CONSUMERS
from shared.db.engine import connecting
from shared.observability.tracing import exporting
from shared.service import health_router


def create_app(settings: IngestSettings) -> FastAPI:
    """Create the application; the worker runs during its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(exporting("ingest"))
            # One connection for each loop, and one each for the outbox, old attempts and the readiness check.
            connections = len(INGEST_CONSUMERS) + 3
            engine = await stack.enter_async_context(
                connecting(settings, pool_size=connections, application="ingest")
            )
            bus = await stack.enter_async_context(connect(settings.nats_url, name="ingest"))
            publisher = await stack.enter_async_context(publishing(bus))
            worker = Worker(bus, Repository(engine), publisher, Outbox(engine, publisher))
            consumer = INGEST_CONSUMERS[0]
            subject = f"$JS.API.CONSUMER.INFO.{consumer.stream}.{consumer.name}"
            await stack.enter_async_context(supervision.running("probe", Probe(bus, subject, {}).run()))
            deleting = keep_deleting_old_attempts(engine)
            await stack.enter_async_context(supervision.running("attempt retention", deleting))
            app.include_router(health_router(worker.unready_reason))
            worker.start()
            stack.push_async_callback(worker.stop)
            yield

    return FastAPI(title="Ingest", lifespan=lifespan, openapi_url=None)
