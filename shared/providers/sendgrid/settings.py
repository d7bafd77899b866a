from typing import Annotated

from pydantic import BeforeValidator, Field, InstanceOf
from pydantic_settings import NoDecode

from shared.providers.sendgrid.signature import SendGridKey
from shared.settings import Credential, ProviderUrl, UnsubscribeSettings


class SendGridSettings(UnsubscribeSettings):
    """Settings of SendGrid.

    Attributes:
        sendgrid_unsubscribe_group: the id of the unsubscribe group that e-mails are sent in.
        sendgrid_webhook_public_key: verifies the signatures of SendGrid's webhooks.
    """

    sendgrid_api_key: Credential | None = None
    sendgrid_url: ProviderUrl = "https://api.sendgrid.com"
    sendgrid_unsubscribe_group: Annotated[int, Field(gt=0)] | None = None
    sendgrid_webhook_public_key: Annotated[
        InstanceOf[SendGridKey] | None, NoDecode, BeforeValidator(SendGridKey.parse)
    ] = Field(default=None, validate_default=False)
