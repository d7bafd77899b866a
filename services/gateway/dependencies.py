"""The services of the gateway, as parameters of the handlers."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from services.gateway.conversations.queries import ConversationQueries
from services.gateway.dead_letters.queries import DeadLetterQueries
from services.gateway.dead_letters.service import DeadLetterService
from services.gateway.events.streaming import EventSource
from services.gateway.media.queries import MediaQueries
from services.gateway.messages.batch import BatchService
from services.gateway.messages.cancellation import CancellationService
from services.gateway.messages.queries import MessageQueries
from services.gateway.messages.service import MessageService
from services.gateway.operations.queries import TrafficQueries
from services.gateway.operations.service import OperationsService
from services.gateway.suppressions.queries import SuppressionQueries
from services.gateway.webhook_endpoints.queries import AttemptQueries
from services.gateway.webhook_endpoints.redelivery import RedeliveryService
from services.gateway.webhook_endpoints.service import WebhookEndpointService
from services.gateway.webhooks.service import WebhookService
from shared.bus.suppression_list import SuppressionList
from shared.media_store import MediaStore

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that handlers use; it is created when the gateway starts."""

    message_service: MessageService
    batch_service: BatchService
    cancellation_service: CancellationService
    messages: MessageQueries
    conversations: ConversationQueries
    dead_letters: DeadLetterQueries
    dead_letter_service: DeadLetterService
    suppressions: SuppressionQueries
    suppression_list: SuppressionList
    webhook_service: WebhookService
    media: MediaQueries
    media_store: MediaStore | None
    operations: OperationsService
    traffic: TrafficQueries
    webhook_endpoint_service: WebhookEndpointService
    redelivery_service: RedeliveryService
    webhook_attempts: AttemptQueries
    events: EventSource
    clock: Callable[[], datetime]


def services_of(request: Request) -> Services:
    return cast("Services", request.app.state.services)


def _service(name: str) -> Any:  # noqa: ANN401 - a dependency
    async def get(request: Request) -> Any:  # noqa: ANN401 - the type is given where it is used
        return getattr(request.app.state.services, name)

    return Depends(get)


async def _default_region(request: Request) -> str:
    return cast("str", request.app.state.default_region)


async def _trace(request: Request) -> Mapping[str, str]:
    """Return the trace that the request belongs to (W3C), and nothing else of its headers."""
    trace = request.headers.get("traceparent", "")
    return {"traceparent": trace} if _TRACEPARENT.fullmatch(trace) else {}


BatchServiceDep = Annotated[BatchService, _service("batch_service")]
MessageServiceDep = Annotated[MessageService, _service("message_service")]
CancellationServiceDep = Annotated[CancellationService, _service("cancellation_service")]
Messages = Annotated[MessageQueries, _service("messages")]
Conversations = Annotated[ConversationQueries, _service("conversations")]
DeadLetters = Annotated[DeadLetterQueries, _service("dead_letters")]
DeadLetterServiceDep = Annotated[DeadLetterService, _service("dead_letter_service")]
Suppressions = Annotated[SuppressionQueries, _service("suppressions")]
SuppressionListDep = Annotated[SuppressionList, _service("suppression_list")]
MediaFiles = Annotated[MediaQueries, _service("media")]
MediaStoreDep = Annotated[MediaStore | None, _service("media_store")]
WebhookServiceDep = Annotated[WebhookService, _service("webhook_service")]
Operations = Annotated[OperationsService, _service("operations")]
TrafficQueriesDep = Annotated[TrafficQueries, _service("traffic")]
WebhookEndpointServiceDep = Annotated[WebhookEndpointService, _service("webhook_endpoint_service")]
RedeliveryServiceDep = Annotated[RedeliveryService, _service("redelivery_service")]
Attempts = Annotated[AttemptQueries, _service("webhook_attempts")]
Events = Annotated[EventSource, _service("events")]
Clock = Annotated[Callable[[], datetime], _service("clock")]
DefaultRegion = Annotated[str, Depends(_default_region)]
Trace = Annotated[Mapping[str, str], Depends(_trace)]
