import asyncio

from shared.providers.webhooks import Webhook, WebhookContent, WebhookRequest
from shared.validation import MAX_BODY


async def parse_webhook(webhook: Webhook, request: WebhookRequest) -> WebhookContent:
    """Return the content of a webhook; raise WebhookError if it cannot be read."""
    if webhook.max_size > MAX_BODY:  # may take long enough to block other requests
        return await asyncio.to_thread(webhook.parse, request)
    return webhook.parse(request)
