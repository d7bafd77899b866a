from typing import Annotated

from fastapi import Depends, Request

from services.gateway.dependencies import services_of
from services.gateway.http.aliases import CALLED_PATH
from services.gateway.http.body import read_body
from shared.providers.webhooks import WebhookRequest


async def webhook_request(request: Request) -> WebhookRequest:
    """Return a request as the providers expect it; raise ProblemError as `read_body` does."""
    return WebhookRequest(
        path=request.scope.get(CALLED_PATH, request.scope["path"]),
        query=request.scope["query_string"],
        headers=request.headers,
        body=await read_body(request),
        received_at=services_of(request).clock(),
        default_region=request.app.state.default_region,
    )


ReceivedWebhook = Annotated[WebhookRequest, Depends(webhook_request)]
