import asyncio

from shared.providers.webhooks import Webhook, WebhookContent, WebhookRequest

_LARGE = 32 * 1024
"""Bytes of a body; parsing a larger one may take long enough to block other requests."""


async def parse_webhook(webhook: Webhook, request: WebhookRequest) -> WebhookContent:
    """Return the content of a webhook; raise WebhookError if it cannot be read."""
    if len(request.body) > _LARGE:
        return await asyncio.to_thread(webhook.parse, request)
    return webhook.parse(request)
