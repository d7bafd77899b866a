from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

import httpx
import structlog
from fastapi import Depends, FastAPI, Security
from sqlalchemy.ext.asyncio import AsyncEngine

from services.gateway.api_keys import routes as api_keys
from services.gateway.conversations import routes as conversations
from services.gateway.conversations.queries import ConversationQueries
from services.gateway.dead_letters import routes as dead_letters
from services.gateway.dead_letters.queries import DeadLetterQueries
from services.gateway.dead_letters.service import DeadLetterService
from services.gateway.dependencies import Services
from services.gateway.events import routes as events
from services.gateway.events.documentation import document_events
from services.gateway.events.feed import EventLog, Feed
from services.gateway.events.streaming import EventSource
from services.gateway.http.aliases import Aliases
from services.gateway.http.auth import authenticate
from services.gateway.http.cors import allow_origins
from services.gateway.http.docs import mount_docs
from services.gateway.http.errors import add_error_handlers
from services.gateway.http.limits import BodyLimits
from services.gateway.http.openapi import install_openapi, operation_id
from services.gateway.http.pagination import sign_cursors_with
from services.gateway.http.parameters import refuse_unknown_parameters
from services.gateway.http.problem_pages import problem_router
from services.gateway.http.telemetry import Telemetry
from services.gateway.media import routes as media
from services.gateway.media.queries import MediaQueries
from services.gateway.messages import routes as messages
from services.gateway.messages.batch import BatchService, StoredBatch
from services.gateway.messages.cancellation import CancellationService
from services.gateway.messages.idempotency import IdempotencyStore, StoredRequest
from services.gateway.messages.queries import MessageQueries
from services.gateway.messages.service import MessageService
from services.gateway.operations import routes as operations
from services.gateway.operations.queries import TrafficQueries
from services.gateway.operations.service import OperationsService
from services.gateway.page.routes import mount_page
from services.gateway.playground import routes as playground
from services.gateway.playground.routes import MockControls
from services.gateway.settings import GatewaySettings
from services.gateway.suppressions import routes as suppressions
from services.gateway.suppressions.queries import SuppressionQueries
from services.gateway.suppressions.unsubscribe import unsubscribe_router
from services.gateway.webhook_endpoints import routes as webhook_endpoints
from services.gateway.webhook_endpoints.queries import AttemptQueries
from services.gateway.webhook_endpoints.redelivery import RedeliveryService
from services.gateway.webhook_endpoints.service import WebhookEndpointService
from services.gateway.webhooks.routes import body_rules, body_schemas, webhook_router
from services.gateway.webhooks.service import WebhookService
from shared import supervision
from shared.bus.client import Bus, connect
from shared.bus.key_value import KeyValueStore
from shared.bus.probe import BucketProbe
from shared.bus.publisher import Publisher, publishing
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import IDEMPOTENCY_BUCKET, Stream
from shared.db.engine import connecting
from shared.db.reader import Reader
from shared.errors import DatabaseUnavailableError
from shared.events import Event
from shared.ledger import Ledger
from shared.media_store import open_store
from shared.message import IncomingMessage
from shared.observability.tracing import exporting
from shared.providers.webhooks import Verifier
from shared.resources.events import Renderer
from shared.service import health_router
from shared.version import VERSION

_log = structlog.get_logger()

_POOL_SIZE = 10

_MOCK_TIMEOUT = 10.0
"""Seconds."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    settings: GatewaySettings,
    verifiers: Mapping[str, Verifier | None],
    opt_out_groups: Mapping[str, str] | None = None,
) -> FastAPI:
    """Create the gateway, which connects to NATS and PostgreSQL as soon as they are available.

    Args:
        settings: of the gateway.
        verifiers: the verifier of each provider's webhooks, if one is configured.
        opt_out_groups: the opt-out groups that messages are sent in, by provider.
    """
    app = FastAPI(
        title="Messaging service",
        version=VERSION,
        summary="Send SMS, MMS and e-mail, receive them, and read the conversations.",
        lifespan=_lifespan(settings, verifiers, opt_out_groups or {}),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
    )
    sign_cursors_with(settings.cursor_secret)
    app.state.api_keys = settings.all_api_keys
    app.state.has_playground = bool(settings.playground_urls)
    app.state.default_region = settings.default_region
    app.add_middleware(BodyLimits, rules={**body_rules(verifiers), **messages.BODY_RULES})
    app.add_middleware(Aliases)
    allow_origins(app, settings.cors_origins)
    app.add_middleware(Telemetry)
    add_error_handlers(app)
    mount_docs(app)
    mount_page(app)

    authenticated = [Security(authenticate), Depends(refuse_unknown_parameters)]
    # Requests are matched against one route or router after another, so the busiest ones come first. FastAPI
    # would match a route twice if its router were included.
    app.router.routes.extend((*messages.sending_router.routes, *conversations.replying_router.routes))
    # If some webhooks have a secret, the others are not left open.
    app.include_router(webhook_router(verifiers, is_open=not settings.webhook_secret))
    for module in (
        messages,
        conversations,
        media,
        dead_letters,
        suppressions,
        events,
        webhook_endpoints,
        operations,
        api_keys,
    ):
        app.include_router(module.router, dependencies=authenticated)
    if settings.playground_urls:
        app.include_router(playground.router, dependencies=authenticated)
    if settings.unsubscribe_secret:
        app.include_router(unsubscribe_router(settings.unsubscribe_secret.get_secret_value()))
    app.include_router(problem_router())
    app.include_router(health_router(lambda: _unready_reason(app), lambda: _dependencies(app)))
    document_events(app)
    install_openapi(app, body_schemas())
    return app


def _lifespan(
    settings: GatewaySettings,
    verifiers: Mapping[str, Verifier | None],
    opt_out_groups: Mapping[str, str],
) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        _warn_if_open(settings, verifiers)
        async with (
            httpx.AsyncClient(timeout=_MOCK_TIMEOUT) as client,
            exporting("gateway"),
            connecting(settings, pool_size=_POOL_SIZE, application="gateway") as engine,
            connect(settings.nats_url, name="gateway") as bus,
            publishing(bus) as publisher,
        ):
            app.state.probe = probe = BucketProbe(bus, publisher, IDEMPOTENCY_BUCKET)
            app.state.reader = Reader(engine)
            app.state.mock_controls = _create_mock_controls(settings, client)
            log = EventLog(bus, Renderer(Reader(engine)))
            feed = Feed(log, lambda: getattr(app.state, "is_stopping", False))
            app.state.services = _create_services(
                settings, opt_out_groups, bus, publisher, engine, EventSource(log, feed)
            )
            async with supervision.running("probe", probe.run()), supervision.running("feed", feed.run()):
                yield

    return lifespan


def _create_services(
    settings: GatewaySettings,
    opt_out_groups: Mapping[str, str],
    bus: Bus,
    publisher: Publisher,
    engine: AsyncEngine,
    event_source: EventSource,
) -> Services:
    validity = settings.message_validity
    reader = Reader(engine)
    suppression_list = SuppressionList(bus, publisher, opt_out_groups)
    queries = MessageQueries(reader, validity)
    requests = KeyValueStore.bucket(bus, publisher, IDEMPOTENCY_BUCKET, StoredRequest)
    received = KeyValueStore(bus, publisher, Stream.INBOUND, Event[IncomingMessage])
    store = open_store(settings)
    webhook_service = WebhookService(
        publisher, suppression_list, settings.default_region, settings.own_keywords, store
    )
    message_service = MessageService(
        publisher,
        IdempotencyStore(requests),
        suppression_list,
        received,
        validity,
        settings.can_send,
        _now,
    )
    batches = KeyValueStore.bucket(bus, publisher, IDEMPOTENCY_BUCKET, StoredBatch)
    attempts = AttemptQueries(reader)
    endpoints = WebhookEndpointService(
        bus,
        publisher,
        settings.webhook_endpoint_key,
        settings.default_region,
        _now,
        allow_private=settings.allow_private_webhooks,
    )
    return Services(
        message_service=message_service,
        batch_service=BatchService(message_service, IdempotencyStore(batches)),
        cancellation_service=CancellationService(Ledger(bus, publisher), publisher, _now),
        messages=queries,
        conversations=ConversationQueries(reader),
        dead_letters=DeadLetterQueries(reader),
        dead_letter_service=DeadLetterService(publisher, webhook_service.post_again, validity, _now),
        suppressions=SuppressionQueries(reader),
        suppression_list=suppression_list,
        webhook_service=webhook_service,
        media=MediaQueries(reader),
        media_store=store,
        operations=OperationsService(bus, keeps_media=store is not None),
        traffic=TrafficQueries(reader),
        webhook_endpoint_service=endpoints,
        redelivery_service=RedeliveryService(bus, publisher, endpoints, attempts, _now),
        webhook_attempts=attempts,
        events=event_source,
        clock=_now,
    )


def _create_mock_controls(settings: GatewaySettings, client: httpx.AsyncClient) -> MockControls:
    token = settings.playground_token
    return MockControls(settings.playground_urls, token.get_secret_value() if token else None, client)


async def _unready_reason(app: FastAPI) -> str | None:
    """Return the reason why no message can be accepted, or None; accepting one does not need PostgreSQL."""
    reason: str | None = app.state.probe.unready_reason
    return reason


async def _dependencies(app: FastAPI) -> Mapping[str, str]:
    try:
        await app.state.reader.ping()
    except DatabaseUnavailableError:
        return {"postgresql": "does not answer, or has no schema: nothing can be read"}
    return {"postgresql": "ok"}


def _now() -> datetime:
    return datetime.now(UTC)


def _warn_if_open(settings: GatewaySettings, verifiers: Mapping[str, Verifier | None]) -> None:
    if not settings.api_keys:
        _log.warning("gateway_open", missing="API_KEYS", consequence="anybody can send and read messages")
    if not settings.media_store:
        _log.warning(
            "media_not_kept", missing="MEDIA_STORE", consequence="the attachments of inbound e-mails are lost"
        )
    if not settings.webhook_secret:
        open_providers = [name for name, verifier in verifiers.items() if verifier is None]
        _log.warning(
            "webhooks_open",
            missing="WEBHOOK_SECRET",
            providers=open_providers,
            consequence="anybody can pose as a provider",
        )
