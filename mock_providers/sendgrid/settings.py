from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BeforeValidator, Field

from mock_providers.sendgrid.signature import decode_private_key, new_private_key
from mock_providers.settings import MockSettings


class SendGridSettings(MockSettings):
    """The API key that clients send, and the key that signs webhooks: a new one unless it is set."""

    sendgrid_api_key: str = Field("SG.mock", repr=False)
    sendgrid_webhook_private_key: Annotated[
        ec.EllipticCurvePrivateKey, BeforeValidator(decode_private_key)
    ] = Field(default_factory=new_private_key, validate_default=False, repr=False)
