from typing import cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from services.gateway.dependencies import services_of
from services.gateway.http.errors import ProblemError
from shared.providers.webhooks import WebhookRequest


async def webhook_request(request: Request) -> WebhookRequest:
    """Return a request as providers parse it; the guard and the handler share one.

    Raises:
        ProblemError: 400, the client has gone.
    """
    known = getattr(request.state, "webhook", None)
    if known is None:
        services = services_of(request)
        try:
            body = await request.body()
        except ClientDisconnect as exc:
            raise ProblemError(400, "incomplete_body", "The body is incomplete") from exc
        known = request.state.webhook = WebhookRequest(
            path=request.scope["path"],
            query=request.scope["query_string"],
            headers=request.headers,
            body=body,
            received_at=services.clock(),
            default_region=request.app.state.default_region,
        )
    return cast("WebhookRequest", known)
