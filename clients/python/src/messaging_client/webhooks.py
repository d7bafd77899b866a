import json
from collections.abc import Mapping

from standardwebhooks.webhooks import Webhook

from messaging_client.events import Event


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secret: str) -> Event:
    """Return the event of a webhook.

    The same event may be delivered more than once; its `id` is then the same.

    Args:
        body: of the request, exactly as it was received.
        headers: of the request.
        secret: of the webhook endpoint, beginning with `whsec_`.

    Raises:
        WebhookVerificationError: the webhook was not signed with the secret, or not within the last five
            minutes.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    Webhook(secret).verify(body, lower)
    event: Event = json.loads(body)
    return event
