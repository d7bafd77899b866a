import ipaddress
from datetime import timedelta
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

import phonenumbers
from pydantic import BeforeValidator, Field, InstanceOf, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.gateway.http.auth import ApiKeys
from shared.bus.topology import SEND_WINDOW
from shared.endpoint_secrets import EndpointKeySettings
from shared.keywords import Keyword, Words, words_for
from shared.providers.generic.settings import WebhookSecretSettings
from shared.settings import BusSettings, DatabaseSettings, NonEmpty, Port, UnsubscribeSettings

_MAX_VALIDITY_HOURS = SEND_WINDOW / timedelta(hours=1)


def _words(keyword: Keyword, text: str) -> Words:
    return words_for(text.split(","), keyword)


class GatewaySettings(
    BusSettings, DatabaseSettings, UnsubscribeSettings, WebhookSecretSettings, EndpointKeySettings
):
    """Settings of the gateway; those of the providers' webhooks are in `shared.providers`.

    Attributes:
        gateway_health_port: a port for this process only, with its health endpoints and metrics; 0 selects
            any free one. If it is set, several processes on a machine can share `gateway_port`.
        health_host: the address of that port.
        api_keys: the clients' keys, as `name:key,…`.
        default_region: ISO 3166 country of phone numbers in national form.
        message_validity_hours: how long after its acceptance a message may still be sent.
        allow_unauthenticated: whether the gateway listens to other machines although keys or secrets are
            missing.
        opt_out_keywords, opt_in_keywords: the texts by which recipients opt out and in, besides the usual
            ones, separated by commas.
        drain_seconds: how long the gateway still answers requests after SIGTERM, while it is not ready.
    """

    gateway_host: NonEmpty = "127.0.0.1"
    gateway_port: Port = 8080
    gateway_health_port: Port = 0
    health_host: NonEmpty = "127.0.0.1"
    api_keys: Annotated[InstanceOf[ApiKeys], NoDecode, BeforeValidator(ApiKeys.parse)] = Field(
        default=ApiKeys({}), validate_default=False
    )
    default_region: str = "US"
    message_validity_hours: float = Field(default=4, gt=0, le=_MAX_VALIDITY_HOURS)
    allow_unauthenticated: bool = Field(default=False, validate_default=True)
    opt_out_keywords: Annotated[Words, NoDecode, BeforeValidator(partial(_words, Keyword.STOP))] = Field(
        default={}, validate_default=False
    )
    opt_in_keywords: Annotated[Words, NoDecode, BeforeValidator(partial(_words, Keyword.START))] = Field(
        default={}, validate_default=False
    )
    drain_seconds: float = Field(default=0, ge=0, le=60)

    @property
    def message_validity(self) -> timedelta:
        return timedelta(hours=self.message_validity_hours)

    @property
    def own_keywords(self) -> Words:
        return {**self.opt_in_keywords, **self.opt_out_keywords}

    @property
    def cursor_secret(self) -> str:
        """A secret that all gateways of the database have: its password, or else its whole URL."""
        return urlsplit(self.database_url).password or self.database_url

    @field_validator("default_region")
    @classmethod
    def _require_known_region(cls, region: str) -> str:
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("must be a country such as US")
        return region

    @field_validator("allow_unauthenticated")
    @classmethod
    def _require_authentication_in_public(
        cls,
        is_allowed: bool,  # noqa: FBT001 - pydantic passes it by position
        info: ValidationInfo,
    ) -> bool:
        # Invalid values are not in the data. A key or secret that is invalid is not missing.
        host = info.data.get("gateway_host", "localhost")
        missing = [name.upper() for name in ("api_keys", "webhook_secret") if not info.data.get(name, True)]
        if missing and not is_allowed and not _is_loopback(host):
            raise ValueError(f"must be true to listen on {host} without {' and '.join(missing)}")
        return is_allowed


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
