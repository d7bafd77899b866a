import asyncio

import structlog

from shared.providers.webhooks import (
    UnreadableWebhookError,
    Webhook,
    WebhookContent,
    WebhookError,
    WebhookRequest,
)

_log = structlog.get_logger()

_LARGE = 32 * 1024
"""Bytes of a body; parsing a larger one may take long enough to block other requests."""


async def parse_webhook(webhook: Webhook, request: WebhookRequest) -> WebhookContent:
    """Return the content of a webhook; raise WebhookError if it cannot be read."""
    try:
        if len(request.body) > _LARGE:
            return await asyncio.to_thread(webhook.parse, request)
        return webhook.parse(request)
    except WebhookError:
        raise
    except Exception as exc:
        # A defect of the parser must not lose the webhook: its provider would repeat it in vain.
        _log.exception("webhook_parser_failed", route=request.path)
        raise UnreadableWebhookError(f"The parser failed: {type(exc).__name__}") from exc
