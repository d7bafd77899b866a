from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import cast

import structlog
from fastapi import FastAPI, Security
from sqlalchemy.ext.asyncio import AsyncEngine

from services.gateway.http import errors
from services.gateway.archive import Archive
from services.gateway.http.auth import RequireApiKey, RequireSignature
from services.gateway.messages.cancellation import Canceler
from services.gateway.messages.idempotency import Memory
from services.gateway.messages.service import Intake
from services.gateway.http.telemetry import Measure
from services.gateway.openapi import describer
from services.gateway.dead_letters.service import Resolver
from services.gateway.webhooks import routes
from services.gateway.messages import routes
from services.gateway.suppressions import unsubscribe
from services.gateway.suppressions import routes
from services.gateway.dead_letters import routes
from services.gateway.conversations import routes
from services.gateway.settings import GatewaySettings
from services.gateway.state import State
from shared.providers.twilio import receive
from shared.providers.sendgrid import inbound
from shared.bus.key_value import Bucket, Values
from shared.bus.client import Bus, connect
from shared.bus.publisher import Publisher, publishing
from shared.bus.topology import IDEMPOTENCY_BUCKET, Stream
from shared.suppressions import SuppressionList
from shared.db.engine import connecting
from shared.ledger import Ledger
from shared.service import health_router
from shared.observability.tracing import exporting

_log = structlog.get_logger()

_POOL_SIZE = 10

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: GatewaySettings) -> FastAPI:
    """Make the gateway, which connects when it is started; NATS and PostgreSQL may come later."""
    app = FastAPI(
        title="Messaging service",
        version="1",
        summary="Send SMS, MMS and e-mail, receive them, and read the conversations.",
        lifespan=_lifespan(settings),
        redirect_slashes=False,
    )
    app.openapi = describer(app)  # type: ignore[method-assign] # as FastAPI has it
    app.add_middleware(Measure)
    errors.install(app)

    clients = [Security(RequireApiKey(settings.api_keys))] if settings.api_keys else []
    providers = [Security(RequireSignature(settings.webhook_secret))] if settings.webhook_secret else []
    for module in (messages, conversations, dead_letters, suppressions):
        app.include_router(module.router, dependencies=clients)
    app.include_router(webhooks.router, dependencies=providers)
    # Whoever has a secret for some webhooks does not want others to be open.
    is_open = not settings.webhook_secret
    app.include_router(twilio.router(settings.twilio_signatures, is_open=is_open))
    app.include_router(sendgrid.router(settings.sendgrid_webhook_public_key, is_open=is_open))
    if settings.unsubscribe_secret:
        app.include_router(unsubscribe.router(settings.unsubscribe_secret.get_secret_value()))
    app.include_router(health_router(lambda: _state(app).what_is_missing(), lambda: _state(app).notes()))
    return app


def _state(app: FastAPI) -> State:
    return cast("State", app.state.gateway)


def _lifespan(settings: GatewaySettings) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        _warn_if_open(settings)
        async with (
            exporting("gateway"),
            connecting(settings, pool_size=_POOL_SIZE, application="gateway") as engine,
            connect(settings.nats_url, name="gateway") as bus,
            publishing(bus) as publisher,
        ):
            app.state.gateway = _make_state(settings, bus, publisher, engine)
            yield

    return lifespan


def _make_state(settings: GatewaySettings, bus: Bus, publisher: Publisher, engine: AsyncEngine) -> State:
    validity = settings.message_validity
    memory = Memory(Bucket(bus, publisher, IDEMPOTENCY_BUCKET))
    suppressions = SuppressionList(bus, publisher)
    inbound = Values(bus, publisher, Stream.INBOUND)
    return State(
        bus=bus,
        intake=Intake(publisher, memory, suppressions, inbound, validity, _now),
        resolver=Resolver(publisher=publisher, validity=validity, clock=_now),
        archive=Archive(engine, validity),
        canceler=Canceler(Ledger(bus, publisher), publisher, _now),
        suppressions=suppressions,
        clock=_now,
        default_region=settings.default_region,
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _warn_if_open(settings: GatewaySettings) -> None:
    if not settings.api_keys:
        _log.warning("gateway_open", missing="API_KEYS", consequence="anybody can send and read messages")
    if not settings.webhook_secret:
        secrets = ("webhook_secret", "twilio_auth_token", "sendgrid_webhook_public_key")
        missing = " and ".join(name.upper() for name in secrets if not getattr(settings, name))
        _log.warning("gateway_open", missing=missing, consequence="anybody can pose as a provider")
