from typing import Annotated

from pydantic import BeforeValidator, Field, InstanceOf
from pydantic_settings import NoDecode

from shared.providers.generic.signature import WebhookSecrets
from shared.settings import ProviderUrl, Settings


class WebhookSecretSettings(Settings):
    """The secret of the generic providers' webhooks.

    Attributes:
        webhook_secret: signs the webhooks of the generic providers (Standard Webhooks), as `whsec_` and
            base64.
    """

    webhook_secret: Annotated[InstanceOf[WebhookSecrets], NoDecode, BeforeValidator(WebhookSecrets.parse)] = (
        Field(default=WebhookSecrets([]), validate_default=False)
    )


class GenericSmsSettings(WebhookSecretSettings):
    """Settings of the generic SMS and MMS provider."""

    sms_provider_url: ProviderUrl = "http://localhost:8001"


class GenericEmailSettings(WebhookSecretSettings):
    """Settings of the generic e-mail provider."""

    email_provider_url: ProviderUrl = "http://localhost:8002"
