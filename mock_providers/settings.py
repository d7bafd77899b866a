import logging
from dataclasses import replace
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from mock_providers.backend import Credentials
from mock_providers.sendgrid.signature import decode_private_key
from mock_providers.webhooks import decode_secret

Port = Annotated[int, Field(ge=0, le=65535)]


def _level(name: str) -> str:
    level = name.upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


class Settings(BaseSettings):
    """The environment, or a `.env` in the current folder."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", arbitrary_types_allowed=True
    )

    mock_providers_host: str = "127.0.0.1"
    sms_provider_port: Port = 8001
    email_provider_port: Port = 8002
    gateway_url: HttpUrl = HttpUrl("http://127.0.0.1:8080")
    gateway_public_url: HttpUrl | None = None
    webhook_secret: Annotated[bytes, BeforeValidator(decode_secret)] | None = Field(None, repr=False)
    twilio_account_sid: str = Credentials.twilio_account_sid
    twilio_auth_token: str = Field(Credentials.twilio_auth_token, repr=False)
    sendgrid_api_key: str = Field(Credentials.sendgrid_api_key, repr=False)
    sendgrid_webhook_private_key: (
        Annotated[ec.EllipticCurvePrivateKey, BeforeValidator(decode_private_key)] | None
    ) = Field(None, repr=False)
    log_level: Annotated[str, AfterValidator(_level)] = "INFO"

    @property
    def credentials(self) -> Credentials:
        """With a key of its own where none is set."""
        made = Credentials(
            twilio_account_sid=self.twilio_account_sid,
            twilio_auth_token=self.twilio_auth_token,
            sendgrid_api_key=self.sendgrid_api_key,
        )
        key = self.sendgrid_webhook_private_key
        return replace(made, sendgrid_key=key) if key else made
