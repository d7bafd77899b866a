"""The gateway with a NATS in memory, and with a PostgreSQL that does not answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.app import create_app
from services.gateway.conversations.queries import ConversationQueries
from services.gateway.dead_letters.queries import DeadLetterQueries
from services.gateway.dead_letters.service import DeadLetterService
from services.gateway.dependencies import Services
from services.gateway.events.feed import EventLog, Feed
from services.gateway.events.streaming import EventSource
from services.gateway.media.queries import MediaQueries
from services.gateway.messages.batch import BatchService, StoredBatch
from services.gateway.messages.cancellation import CancellationService
from services.gateway.messages.idempotency import IdempotencyStore, StoredRequest
from services.gateway.messages.queries import MessageQueries
from services.gateway.messages.service import MessageService
from services.gateway.operations.queries import TrafficQueries
from services.gateway.operations.service import OperationsService
from services.gateway.settings import GatewaySettings
from services.gateway.suppressions.queries import SuppressionQueries
from services.gateway.webhook_endpoints.queries import AttemptQueries
from services.gateway.webhook_endpoints.redelivery import RedeliveryService
from services.gateway.webhook_endpoints.service import WebhookEndpointService
from services.gateway.webhooks.service import WebhookService
from shared.bus.key_value import KeyValueStore
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import IDEMPOTENCY_BUCKET, Stream
from shared.db.reader import Reader
from shared.endpoint_secrets import SecretCipher
from shared.errors import DatabaseUnavailableError
from shared.events import Event, decode
from shared.ledger import Ledger
from shared.message import IncomingMessage
from shared.resources.events import Renderer
from tests.jetstream import BusTo, JetStream, PublisherTo
from tests.webhooks import verifiers

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
MAX_NATS_MESSAGE = 1024 * 1024 - 4 * 1024
"""Bytes, without the headers."""

_VALIDITY = timedelta(hours=4)
_CIPHER = SecretCipher("a key for webhook endpoints")

T = TypeVar("T")


class NoDatabase(Reader):
    def __init__(self) -> None:
        pass

    async def read(self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:  # noqa: ARG002 - not executed
        raise DatabaseUnavailableError("there is none")


def make_settings(**values: Any) -> GatewaySettings:  # noqa: ANN401 - any setting
    required = {"nats_url": "nats://unused", "database_url": "postgresql+asyncpg://unused"}
    return GatewaySettings(_env_file=None, **{**required, **values})


def create_gateway(
    server: JetStream | None = None,
    *,
    clock: Callable[[], datetime] = lambda: NOW,
    **settings: Any,  # noqa: ANN401 - any setting
) -> FastAPI:
    """Create a gateway with some settings, which include those of the providers."""
    app = create_app(make_settings(**settings), verifiers(**settings))
    app.state.services = create_services(server or JetStream(clock), clock, **settings)
    return app


def create_services(
    server: JetStream,
    clock: Callable[[], datetime] = lambda: NOW,
    **settings: Any,  # noqa: ANN401 - any setting
) -> Services:
    can_send = make_settings(**settings).can_send
    bus, publisher, reader = BusTo(server), PublisherTo(server), NoDatabase()
    suppressions = SuppressionList(bus, publisher)
    requests = KeyValueStore.bucket(bus, publisher, IDEMPOTENCY_BUCKET, StoredRequest)
    received = KeyValueStore(bus, publisher, Stream.INBOUND, Event[IncomingMessage])
    idempotency = IdempotencyStore(requests)
    webhook_service = WebhookService(publisher, suppressions, "US")
    message_service = MessageService(
        publisher, idempotency, suppressions, received, _VALIDITY, can_send, clock
    )
    batches = KeyValueStore.bucket(bus, publisher, IDEMPOTENCY_BUCKET, StoredBatch)
    log = EventLog(bus, Renderer(reader))
    endpoints = WebhookEndpointService(bus, publisher, _CIPHER, "US", clock, allow_private=False)
    return Services(
        message_service=message_service,
        batch_service=BatchService(message_service, IdempotencyStore(batches)),
        cancellation_service=CancellationService(Ledger(bus, publisher), publisher, clock),
        messages=MessageQueries(reader, _VALIDITY),
        conversations=ConversationQueries(reader),
        dead_letters=DeadLetterQueries(reader),
        dead_letter_service=DeadLetterService(publisher, webhook_service.post_again, _VALIDITY, clock),
        suppressions=SuppressionQueries(reader),
        suppression_list=suppressions,
        webhook_service=webhook_service,
        media=MediaQueries(reader),
        media_store=None,
        operations=OperationsService(bus, keeps_media=False),
        traffic=TrafficQueries(reader),
        webhook_endpoint_service=endpoints,
        redelivery_service=RedeliveryService(bus, publisher, endpoints, AttemptQueries(reader), clock),
        webhook_attempts=AttemptQueries(reader),
        events=EventSource(log, Feed(log, lambda: False)),
        clock=clock,
    )


@asynccontextmanager
async def calling(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def events(server: JetStream, stream: Stream) -> list[Event[Any]]:
    """Return the events in a stream, each of which NATS would have accepted."""
    payloads = [message.payload for message in server.messages(stream)]
    assert all(len(payload) <= MAX_NATS_MESSAGE for payload in payloads)
    return [decode(payload) for payload in payloads]
