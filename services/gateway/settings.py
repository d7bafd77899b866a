import ipaddress
from datetime import timedelta
from typing import Annotated

import phonenumbers
from pydantic import BeforeValidator, Field, InstanceOf, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.gateway.http.auth import ApiKeys, WebhookSecrets
from shared.providers.sendgrid.inbound import SendgridKey
from shared.providers.twilio.receive import TwilioSignatures
from shared.bus.topology import SEND_WINDOW
from shared.settings import BusSettings, DatabaseSettings, NonEmpty, Port, UnsubscribeSecret, WebUrl

_MAX_VALIDITY_HOURS = SEND_WINDOW / timedelta(hours=1)


class GatewaySettings(BusSettings, DatabaseSettings):
    """Settings of the gateway.

    Attributes:
        api_keys: of the clients.
        webhook_secret: what the providers sign with.
        twilio_auth_token: what Twilio signs with.
        sendgrid_webhook_public_key: what SendGrid's signatures are checked with.
        public_base_url: under which providers reach the gateway; Twilio signs it.
        unsubscribe_secret: what the links in mails are signed with, by which recipients unsubscribe.
        default_region: ISO 3166 country of phone numbers in national form.
        message_validity_hours: how long after its acceptance a message may still be sent.
        allow_unauthenticated: listen to other machines although keys or secrets are missing.
    """

    gateway_host: NonEmpty = "127.0.0.1"
    gateway_port: Port = 8080
    api_keys: Annotated[InstanceOf[ApiKeys], NoDecode, BeforeValidator(ApiKeys.parse)] = Field(
        default=ApiKeys({}), validate_default=False
    )
    webhook_secret: Annotated[InstanceOf[WebhookSecrets], NoDecode, BeforeValidator(WebhookSecrets.parse)] = (
        Field(default=WebhookSecrets([]), validate_default=False)
    )
    twilio_auth_token: SecretStr | None = None
    public_base_url: WebUrl | None = None
    sendgrid_webhook_public_key: Annotated[
        InstanceOf[SendgridKey] | None, NoDecode, BeforeValidator(SendgridKey.parse)
    ] = Field(default=None, validate_default=False)
    unsubscribe_secret: UnsubscribeSecret | None = None
    default_region: str = "US"
    message_validity_hours: float = Field(default=4, gt=0, le=_MAX_VALIDITY_HOURS)
    allow_unauthenticated: bool = False

    @property
    def message_validity(self) -> timedelta:
        return timedelta(hours=self.message_validity_hours)

    @property
    def twilio_signatures(self) -> TwilioSignatures | None:
        if self.twilio_auth_token is None or self.public_base_url is None:
            return None
        return TwilioSignatures(self.twilio_auth_token.get_secret_value(), self.public_base_url)

    @property
    def is_open(self) -> bool:
        """Whether anybody who reaches the gateway can send, read, or pretend to be a provider."""
        return not (self.api_keys and self.webhook_secret)

    @field_validator("public_base_url")
    @classmethod
    def _needed_for_twilio(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None and info.data.get("twilio_auth_token"):
            raise ValueError("must be set along with TWILIO_AUTH_TOKEN: Twilio signs the URL")
        return url

    @field_validator("default_region")
    @classmethod
    def _known_region(cls, region: str) -> str:
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("must be a country such as US")
        return region

    @field_validator("allow_unauthenticated")
    @classmethod
    def _open_only_to_this_machine(cls, allowed: bool, info: ValidationInfo) -> bool:  # noqa: FBT001
        values = info.data
        if allowed or not {"gateway_host", "api_keys", "webhook_secret"} <= values.keys():
            return allowed
        missing = [name.upper() for name in ("api_keys", "webhook_secret") if not values[name]]
        if missing and not _is_loopback(values["gateway_host"]):
            raise ValueError(
                f"must be true to listen on {values['gateway_host']} without {' and '.join(missing)}"
            )
        return allowed


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
