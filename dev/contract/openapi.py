from typing import Any

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.providers.registry import PROVIDERS

_SECRET = "a secret of some length"  # noqa: S105 - nothing is served with it
_SETTINGS = {
    "nats_url": "nats://unused",
    "database_url": "postgresql+asyncpg://unused",
    "api_keys": "name:a-key-of-some-length",
    "unsubscribe_secret": _SECRET,
}


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of a gateway with API keys, and with webhooks that have to be signed."""
    settings = GatewaySettings(_env_file=None, **_SETTINGS)  # type: ignore[arg-type] # parsed from text
    return create_app(settings, {name: lambda _: None for name in PROVIDERS}).openapi()
