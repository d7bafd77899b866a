"""Client of the messaging service."""

from standardwebhooks.webhooks import WebhookVerificationError

from messaging_client import models
from messaging_client.asynchronous import AsyncClient
from messaging_client.errors import ProblemError
from messaging_client.synchronous import Client
from messaging_client.webhooks import verify_webhook

__all__ = [
    "AsyncClient",
    "Client",
    "ProblemError",
    "WebhookVerificationError",
    "models",
    "verify_webhook",
]
