"""Mounts the webhooks that the providers declare.

The providers parse the bodies, which are in their own formats; signatures are computed over bytes.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response, Security
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.gateway.dependencies import Trace, WebhookServiceDep
from services.gateway.http.errors import InvalidRequestError, ProblemError, problems
from services.gateway.http.fast_route import FastRoute
from services.gateway.http.limits import BodyRule
from services.gateway.webhooks.guard import RequireSignature
from services.gateway.webhooks.requests import ReceivedWebhook
from shared.providers.base import Provider
from shared.providers.registry import PROVIDERS
from shared.providers.webhooks import (
    InvalidWebhookError,
    UnreadableWebhookError,
    Verifier,
    Webhook,
    WebhookContent,
    WebhookRequest,
)
from shared.validation import MAX_BODY

_PREFIX = "/api/webhooks/"


def webhook_router(verifiers: Mapping[str, Verifier | None], *, is_open: bool) -> APIRouter:
    """Create the routes of all providers' webhooks.

    Args:
        verifiers: the verifier of each provider's signatures, if one is configured.
        is_open: whether requests are accepted that no verifier is configured for.
    """
    router = APIRouter(tags=["webhooks"], route_class=FastRoute)
    for provider in PROVIDERS.values():
        for webhook in provider.webhooks:
            _mount(router, provider, webhook, verifiers.get(provider.name), is_open=is_open)
    return router


def body_rules() -> Mapping[str, BodyRule]:
    """Return the rules for the bodies of all webhooks, by path."""
    return {
        _PREFIX + webhook.path: BodyRule(webhook.media_type, webhook.max_size)
        for provider in PROVIDERS.values()
        for webhook in provider.webhooks
    }


def body_schemas() -> dict[str, Any]:
    """Return the JSON schemas of the webhooks' bodies by name; no handler's signature contains them."""
    models = {
        webhook.body
        for provider in PROVIDERS.values()
        for webhook in provider.webhooks
        if isinstance(webhook.body, type)
    }
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def _mount(
    router: APIRouter, provider: Provider[Any], webhook: Webhook, verifier: Verifier | None, *, is_open: bool
) -> None:
    assert provider.signature is not None  # noqa: S101 - a provider with webhooks has one
    dependencies = []
    if verifier is not None or not is_open:
        dependencies = [Security(RequireSignature(provider, provider.signature, verifier))]

    async def handle(request: ReceivedWebhook, publisher: WebhookServiceDep, trace: Trace) -> Response:
        content = await _parse(webhook, request)
        await publisher.publish(content, request, provider=provider.name, trace=trace)
        return _respond(webhook, content)

    refused = 401 if provider.signature.challenge else 403
    model = webhook.response if isinstance(webhook.response, type) else None
    router.add_api_route(
        _PREFIX + webhook.path,
        handle,
        methods=["POST"],
        name=webhook.name,
        summary=webhook.summary,
        status_code=204 if webhook.response is None else 200,
        response_class=Response,
        responses={**_success(webhook, model), **problems(400, refused, 413, 415, 422, 503)},
        dependencies=dependencies,
        openapi_extra=_request_body(webhook),
    )


async def _parse(webhook: Webhook, request: WebhookRequest) -> WebhookContent:
    try:
        if webhook.max_size > MAX_BODY:  # may take long enough to block other requests
            return await asyncio.to_thread(webhook.parse, request)
        return webhook.parse(request)
    except UnreadableWebhookError as exc:
        raise ProblemError(400, "malformed_body", str(exc)) from exc
    except InvalidWebhookError as exc:
        raise InvalidRequestError(*exc.faults) from exc


def _respond(webhook: Webhook, content: WebhookContent) -> Response:
    body = webhook.respond(content)
    if body is None:
        return Response(status_code=204)
    if isinstance(body, BaseModel):
        return Response(body.model_dump_json(by_alias=True), media_type="application/json")
    return Response(body, media_type=str(webhook.response))


def _success(webhook: Webhook, model: type[BaseModel] | None) -> dict[int | str, dict[str, Any]]:
    if model is not None:
        return {200: {"description": "Accepted and stored", "model": model}}
    if webhook.response is None:
        return {204: {"description": "Accepted and stored"}}
    return {200: {"description": "Accepted and stored", "content": {str(webhook.response): {}}}}


def _request_body(webhook: Webhook) -> dict[str, Any]:
    schema: Any = webhook.body
    if isinstance(schema, type):
        schema = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {"requestBody": {"required": True, "content": {webhook.media_type: {"schema": schema}}}}
