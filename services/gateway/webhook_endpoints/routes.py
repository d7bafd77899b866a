from typing import Any

from fastapi import APIRouter, Response

from services.gateway.dependencies import Attempts, Clock, RedeliveryServiceDep, WebhookEndpointServiceDep
from services.gateway.http.auth import AuthenticatedRoute, Caller
from services.gateway.http.deadline import deadline
from services.gateway.http.errors import problems
from services.gateway.http.pagination import Page, decode_cursor, page_of
from services.gateway.http.parameters import parse_uuid
from services.gateway.messages.idempotency import REPLAYED_HEADER, REPLAYED_RESPONSE_HEADER, IdempotencyKey
from services.gateway.webhook_endpoints.queries import show_attempt
from services.gateway.webhook_endpoints.schemas import (
    AttemptCursor,
    AttemptParameters,
    DeliveryResponse,
    EndpointCursor,
    EndpointParameters,
    RecoverRequest,
    RecoverResponse,
    WebhookAttemptResponse,
    WebhookEndpointCreate,
    WebhookEndpointUpdate,
    WebhookEndpointWithSecret,
)
from services.gateway.webhook_endpoints.service import place_of
from shared.resources.webhook_endpoints import WebhookEndpointResponse

router = APIRouter(
    prefix="/api/webhook-endpoints", tags=["webhook endpoints"], route_class=AuthenticatedRoute
)

_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "Created",
        "headers": {
            "Location": {
                "description": "URL of the endpoint",
                "schema": {"type": "string", "format": "uri-reference"},
            },
            **REPLAYED_RESPONSE_HEADER,
        },
    },
    **problems(
        400,
        401,
        "too_many_webhook_endpoints",
        "webhook_endpoint_deleted",
        "webhook_endpoints_not_configured",
        413,
        415,
        422,
        503,
    ),
}


@router.post("", summary="Create a webhook endpoint", status_code=201, responses=_CREATED)
async def create_webhook_endpoint(
    body: WebhookEndpointCreate,
    caller: Caller,
    service: WebhookEndpointServiceDep,
    clock: Clock,
    response: Response,
    idempotency_key: IdempotencyKey,
) -> WebhookEndpointWithSecret:
    """Send the events that occur from now on to a URL, by signed requests (Standard Webhooks).

    An event is delivered when the response has a status of 2xx and arrives within 15 seconds. Otherwise, it
    is sent again for three days. Each event is sent at least once; its `webhook-id` is always the same.

    A repeated request with the same `Idempotency-Key` returns the same endpoint, with its current secret. For
    a day after that endpoint was deleted, it is refused with a 409.
    """
    async with deadline():
        created = await service.create(body, caller, idempotency_key)
    response.headers["Location"] = f"/api/webhook-endpoints/{created.endpoint.id}"
    if created.is_replayed:
        response.headers[REPLAYED_HEADER] = "true"
    return WebhookEndpointWithSecret.with_secret(created.endpoint, created.secret, clock())


@router.get("", summary="List webhook endpoints, newest first", responses=problems(401, 422, 503))
async def list_webhook_endpoints(
    parameters: EndpointParameters, service: WebhookEndpointServiceDep, clock: Clock
) -> Page[WebhookEndpointResponse]:
    cursor = decode_cursor(parameters.cursor, EndpointCursor, "webhook-endpoints")
    async with deadline():
        endpoints = await service.all()
    rows = [each for each in endpoints if cursor is None or place_of(each) < (cursor.created_at, cursor.id)]
    now = clock()
    return page_of(
        rows[: parameters.limit + 1],
        parameters,
        lambda endpoint: WebhookEndpointResponse.of(endpoint, now),
        EndpointCursor.of,
        "webhook-endpoints",
    )


@router.get(
    "/{id}", summary="Get a webhook endpoint", responses=problems(401, "webhook_endpoint_not_found", 503)
)
async def get_webhook_endpoint(
    id: str,  # noqa: A002 - the name in the path
    service: WebhookEndpointServiceDep,
    clock: Clock,
) -> WebhookEndpointResponse:
    async with deadline():
        return WebhookEndpointResponse.of(await service.get(parse_uuid(id)), clock())


@router.patch(
    "/{id}",
    summary="Change a webhook endpoint",
    responses=problems(
        400, 401, "webhook_endpoint_not_found", "webhook_endpoint_changing", 413, 415, 422, 503
    ),
)
async def update_webhook_endpoint(
    id: str,  # noqa: A002 - the name in the path
    body: WebhookEndpointUpdate,
    service: WebhookEndpointServiceDep,
    clock: Clock,
) -> WebhookEndpointResponse:
    """Change some fields of an endpoint. The change applies within a second.

    When a disabled endpoint is enabled, it is sent the events that occur from then on.
    """
    async with deadline():
        return WebhookEndpointResponse.of(await service.update(parse_uuid(id), body), clock())


@router.delete(
    "/{id}",
    summary="Delete a webhook endpoint",
    status_code=204,
    response_class=Response,
    responses=problems(401, "webhook_endpoint_not_found", "webhook_endpoint_changing", 503),
)
async def delete_webhook_endpoint(
    id: str,  # noqa: A002 - the name in the path
    service: WebhookEndpointServiceDep,
) -> None:
    """Delete an endpoint. Events that are waiting for another attempt are not sent to it."""
    async with deadline():
        await service.delete(parse_uuid(id))


@router.post(
    "/{id}/rotate-secret",
    summary="Rotate the secret of a webhook endpoint",
    responses=problems(
        401,
        "webhook_endpoint_not_found",
        "webhook_endpoint_changing",
        "webhook_endpoints_not_configured",
        503,
    ),
)
async def rotate_webhook_secret(
    id: str,  # noqa: A002 - the name in the path
    service: WebhookEndpointServiceDep,
    clock: Clock,
) -> WebhookEndpointWithSecret:
    """Create a new secret. For 24 hours, webhooks are also signed with the former one."""
    async with deadline():
        endpoint, secret = await service.rotate_secret(parse_uuid(id))
    return WebhookEndpointWithSecret.with_secret(endpoint, secret, clock())


@router.post(
    "/{id}/test",
    summary="Send a test event to a webhook endpoint",
    status_code=202,
    responses=problems(401, "webhook_endpoint_not_found", "webhook_endpoint_disabled", 503),
)
async def test_webhook_endpoint(
    id: str,  # noqa: A002 - the name in the path
    service: RedeliveryServiceDep,
) -> DeliveryResponse:
    """Send an event of the type `webhook_endpoint.test`. Its outcome is among the attempts."""
    async with deadline():
        return DeliveryResponse(event_id=await service.test(parse_uuid(id)))


@router.get(
    "/{id}/attempts",
    summary="List the attempts to deliver events, newest first",
    responses=problems(401, "webhook_endpoint_not_found", 422, 503),
)
async def list_webhook_attempts(
    id: str,  # noqa: A002 - the name in the path
    parameters: AttemptParameters,
    service: WebhookEndpointServiceDep,
    attempts: Attempts,
) -> Page[WebhookAttemptResponse]:
    async with deadline():
        endpoint = await service.get(parse_uuid(id))
    listing = ("webhook-attempts", endpoint.id, parameters.succeeded, parameters.event_id)
    cursor = decode_cursor(parameters.cursor, AttemptCursor, *listing)
    rows = await attempts.list(endpoint.id, parameters, cursor, parameters.limit + 1)
    return page_of(rows, parameters, show_attempt, AttemptCursor.of, *listing)


@router.post(
    "/{id}/attempts/{attempt_id}/retry",
    summary="Send the event of an attempt again",
    status_code=202,
    responses=problems(
        401,
        "webhook_endpoint_not_found",
        "webhook_attempt_not_found",
        "webhook_endpoint_disabled",
        "event_not_retained",
        503,
    ),
)
async def retry_webhook_attempt(
    id: str,  # noqa: A002 - the name in the path
    attempt_id: str,
    service: RedeliveryServiceDep,
) -> DeliveryResponse:
    """Send the event now, without waiting for its next attempt. If that fails, it is retried."""
    async with deadline():
        return DeliveryResponse(event_id=await service.retry(parse_uuid(id), parse_uuid(attempt_id)))


@router.post(
    "/{id}/recover",
    summary="Send the events that an endpoint has never received",
    status_code=202,
    responses=problems(
        400, 401, "webhook_endpoint_not_found", "webhook_endpoint_disabled", 413, 415, 422, 503
    ),
)
async def recover_webhook_events(
    id: str,  # noqa: A002 - the name in the path
    body: RecoverRequest,
    service: RedeliveryServiceDep,
) -> RecoverResponse:
    """Send all events since a time that the endpoint has not received, for example after an outage.

    Repeat the request with the returned `next_after` until that is null.
    """
    async with deadline():
        return await service.recover(parse_uuid(id), body)
