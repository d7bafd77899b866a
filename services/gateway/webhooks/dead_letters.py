"""Dead letters of webhooks: the signature was right, but the content could not be read."""

from hashlib import sha256

from shared.bus.dead_letters import body_fields
from shared.channels import Channel, Direction
from shared.dead_letters import DeadLetter, PostedWebhook
from shared.ids import dead_letter_id
from shared.providers.webhooks import UnreadableWebhookError, WebhookError, WebhookRequest

_MAX_DETAIL = 1_000


def dead_letter_of(request: WebhookRequest, error: WebhookError, channel: Channel) -> DeadLetter:
    """Create the dead letter of a webhook, which is the same each time the webhook is posted."""
    digest = sha256(request.query + b"\n" + request.body).hexdigest()
    return DeadLetter(
        id=dead_letter_id("webhook", request.path, digest),
        direction=Direction.INBOUND,
        channel=channel,
        reason="webhook_unreadable" if isinstance(error, UnreadableWebhookError) else "webhook_invalid",
        detail=str(error)[:_MAX_DETAIL],
        webhook=PostedWebhook(
            path=request.path,
            query=request.query.decode("latin-1"),
            content_type=request.headers.get("content-type", ""),
            received_at=request.received_at,
        ),
        **body_fields(request.body),
    )


def posted(webhook: PostedWebhook, body: bytes, default_region: str) -> WebhookRequest:
    """Return the request of a dead letter as it was received."""
    return WebhookRequest(
        path=webhook.path,
        query=webhook.query.encode("latin-1"),
        headers={"content-type": webhook.content_type},
        body=body,
        received_at=webhook.received_at,
        default_region=default_region,
    )
