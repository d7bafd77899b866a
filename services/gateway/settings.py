import ipaddress
from datetime import timedelta
from typing import Annotated

import phonenumbers
from pydantic import BeforeValidator, Field, InstanceOf, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.gateway.auth import ApiKeys, WebhookSecrets
from shared.bus.topology import SEND_WINDOW
from shared.settings import BusSettings, DatabaseSettings, NonEmpty, Port

_MAX_VALIDITY_HOURS = SEND_WINDOW / timedelta(hours=1)


class GatewaySettings(BusSettings, DatabaseSettings):
    """Settings of the gateway.

    Attributes:
        api_keys: of the clients.
        webhook_secret: what the providers sign with.
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
    default_region: str = "US"
    message_validity_hours: float = Field(default=4, gt=0, le=_MAX_VALIDITY_HOURS)
    allow_unauthenticated: bool = False

    @property
    def message_validity(self) -> timedelta:
        return timedelta(hours=self.message_validity_hours)

    @property
    def is_open(self) -> bool:
        """Whether anybody who reaches the gateway can send, read, or pretend to be a provider."""
        return not (self.api_keys and self.webhook_secret)

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
