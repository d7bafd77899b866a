"""Mounts the webhooks that the providers declare.

The providers parse the bodies, which are in their own formats; signatures are computed over bytes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response, Security
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.gateway.dependencies import Trace, WebhookServiceDep
from services.gateway.http.errors import WEBHOOKS, problems
from services.gateway.http.fast_route import FastRoute
from services.gateway.http.limits import BodyRule
from services.gateway.http.problem_kinds import example_of
from services.gateway.webhooks.guard import REFUSAL_DETAILS, RequireSignature
from services.gateway.webhooks.parsing import parse_webhook
from services.gateway.webhooks.requests import ReceivedWebhook
from shared.http_problems import PROBLEM_TYPE
from shared.ids import DeadLetterId
from shared.providers.base import Provider
from shared.providers.registry import PROVIDERS
from shared.providers.webhooks import (
    Refusal,
    SignatureScheme,
    Verifier,
    Webhook,
    WebhookContent,
    WebhookError,
)


class KeptWebhook(BaseModel):
    """The acknowledgement of a webhook that cannot be read, and was kept for a later release."""

    dead_letter_id: UUID


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


def body_rules(verifiers: Mapping[str, Verifier | None]) -> Mapping[str, BodyRule]:
    """Return the rules for the bodies of all webhooks, by path.

    Any content type is accepted if webhooks are signed. Otherwise, any web page could make the browser of a
    user who can reach the gateway post texts and forms.
    """
    return {
        WEBHOOKS + webhook.path: BodyRule(
            None if verifiers.get(provider.name) else webhook.media_type, webhook.max_size
        )
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
        dependencies = [Security(RequireSignature(provider.signature, verifier))]

    async def handle(request: ReceivedWebhook, publisher: WebhookServiceDep, trace: Trace) -> Response:
        try:
            content = await parse_webhook(webhook, request)
        except WebhookError as exc:
            # The provider may not repeat a webhook that is refused, and could only repeat it unchanged.
            kept_as = await publisher.keep(request, exc, provider.channel)
            return _respond_to_unreadable(webhook, kept_as)
        await publisher.publish(content, request, provider=provider.name, trace=trace)
        if content.invalid_parts:
            await publisher.keep(
                replace(request, body=content.invalid_parts), content.error, provider.channel
            )
        return _respond(webhook, content)

    model = webhook.response if isinstance(webhook.response, type) else None
    faults = (413, 415) if verifier is None else (413,)  # as in `body_rules`
    router.add_api_route(
        WEBHOOKS + webhook.path,
        handle,
        methods=["POST"],
        name=webhook.name,
        summary=webhook.summary,
        status_code=204 if webhook.response is None else 200,
        response_class=Response,
        responses={**_success(webhook, model), **_refused(provider.signature), **problems(*faults, 503)},
        dependencies=dependencies,
        openapi_extra=_request_body(webhook),
    )


def _respond(webhook: Webhook, content: WebhookContent) -> Response:
    body = webhook.respond(content)
    if body is None:
        return Response(status_code=204)
    if isinstance(body, BaseModel):
        return Response(body.model_dump_json(by_alias=True), media_type="application/json")
    return Response(body, media_type=str(webhook.response))


def _respond_to_unreadable(webhook: Webhook, kept_as: DeadLetterId) -> Response:
    if isinstance(webhook.response, str):
        return Response(str(webhook.respond(WebhookContent())), media_type=webhook.response)
    body = KeptWebhook(dead_letter_id=kept_as)
    return Response(body.model_dump_json(), status_code=202, media_type="application/json")


def _success(webhook: Webhook, model: type[BaseModel] | None) -> dict[int | str, dict[str, Any]]:
    kept: dict[int | str, dict[str, Any]] = {
        202: {"description": "Kept as a dead letter, since it cannot be read", "model": KeptWebhook}
    }
    if model is not None:
        return {200: {"description": "Accepted and stored", "model": model}, **kept}
    if webhook.response is None:
        return {204: {"description": "Accepted and stored"}, **kept}
    content = {webhook.response: {"schema": {"type": "string"}, "example": webhook.respond(WebhookContent())}}
    return {200: {"description": "Accepted and stored", "content": content}}


def _refused(signature: SignatureScheme[Any]) -> dict[int | str, dict[str, Any]]:
    if not signature.challenge:
        return problems(403)
    documented = problems(401)
    detail = REFUSAL_DETAILS[Refusal.UNSIGNED].format(header=signature.header)
    # The common example of this kind of problem is about API keys.
    example = {
        "summary": "The signature is missing or not valid",
        "value": example_of("unauthorized", detail),
    }
    documented[401]["content"][PROBLEM_TYPE]["examples"] = {"unauthorized": example}
    return documented


def _request_body(webhook: Webhook) -> dict[str, Any]:
    schema: Any = webhook.body
    if isinstance(schema, type):
        schema = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {"requestBody": {"required": True, "content": {webhook.media_type: {"schema": schema}}}}
