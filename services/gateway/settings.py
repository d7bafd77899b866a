import ipaddress
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

import phonenumbers
from pydantic import BeforeValidator, Field, HttpUrl, InstanceOf, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.gateway.http.auth import Access, ApiKeys
from shared.bus.topology import SEND_WINDOW
from shared.channels import Channel
from shared.endpoint_secrets import EndpointKeySettings
from shared.keywords import Keyword, Words, words_for
from shared.providers.choice import ProviderChoice
from shared.providers.generic.settings import WebhookSecretSettings
from shared.settings import (
    BusSettings,
    DatabaseSettings,
    MediaSettings,
    NonEmpty,
    Port,
    UnsubscribeSettings,
)

_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")
_MAX_VALIDITY_HOURS = SEND_WINDOW / timedelta(hours=1)


def _words(keyword: Keyword, text: str) -> Words:
    return words_for(text.split(","), keyword)


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(filter(None, map(str.strip, text.split(","))))
    if wrong := [origin for origin in origins if origin != "*" and not _ORIGIN.fullmatch(origin)]:
        raise ValueError(f"{wrong[0]} is not an origin such as https://app.example.com")
    return origins


class GatewaySettings(
    BusSettings,
    DatabaseSettings,
    MediaSettings,
    UnsubscribeSettings,
    WebhookSecretSettings,
    EndpointKeySettings,
    ProviderChoice,
):
    """Settings of the gateway; those of the providers' webhooks are in `shared.providers`.

    Attributes:
        gateway_health_port: a port for this process only, with its health endpoints and metrics; 0 selects
            any free one. If it is set, several processes on a machine can share `gateway_port`.
        health_host: the address of that port.
        api_keys: the clients' keys, as `name:key,…`.
        read_only_api_keys: keys in the same form that may only be used to read.
        playground_sms_url, playground_email_url: the mock providers that callers may control, if any.
        playground_token: the token of their controls, if they need one.
        default_region: ISO 3166 country of phone numbers in national form.
        message_validity_hours: how long after its acceptance a message may still be sent.
        allow_unauthenticated: whether the gateway listens to other machines although keys or secrets are
            missing.
        opt_out_keywords, opt_in_keywords: the texts by which recipients opt out and in, besides the usual
            ones, separated by commas.
        cors_origins: the origins of web pages that may call the API from a browser, separated by commas; `*`
            allows all.
        drain_seconds: how long the gateway still answers requests after SIGTERM, while it is not ready.
    """

    gateway_host: NonEmpty = "127.0.0.1"
    gateway_port: Port = 8080
    gateway_health_port: Port = 0
    health_host: NonEmpty = "127.0.0.1"
    api_keys: Annotated[InstanceOf[ApiKeys], NoDecode, BeforeValidator(ApiKeys.parse)] = Field(
        default=ApiKeys({}), validate_default=False
    )
    read_only_api_keys: Annotated[
        InstanceOf[ApiKeys], NoDecode, BeforeValidator(partial(ApiKeys.parse, access=Access.READ))
    ] = Field(default=ApiKeys({}), validate_default=False)
    playground_sms_url: HttpUrl | None = None
    playground_email_url: HttpUrl | None = None
    playground_token: SecretStr | None = None
    default_region: str = "US"
    message_validity_hours: float = Field(default=4, gt=0, le=_MAX_VALIDITY_HOURS)
    allow_unauthenticated: bool = Field(default=False, validate_default=True)
    opt_out_keywords: Annotated[Words, NoDecode, BeforeValidator(partial(_words, Keyword.STOP))] = Field(
        default={}, validate_default=False
    )
    opt_in_keywords: Annotated[Words, NoDecode, BeforeValidator(partial(_words, Keyword.START))] = Field(
        default={}, validate_default=False
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] = Field(
        default=(), validate_default=False
    )
    drain_seconds: float = Field(default=0, ge=0, le=60)

    @property
    def all_api_keys(self) -> ApiKeys:
        return self.read_only_api_keys | self.api_keys

    @property
    def playground_urls(self) -> Mapping[Channel, str]:
        """The URLs of the mock providers that callers may control."""
        urls = {Channel.SMS: self.playground_sms_url, Channel.EMAIL: self.playground_email_url}
        return {channel: str(url).rstrip("/") for channel, url in urls.items() if url}

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

    @field_validator("read_only_api_keys")
    @classmethod
    def _require_keys_that_write(cls, keys: ApiKeys, info: ValidationInfo) -> ApiKeys:
        if keys and not info.data.get("api_keys", True):
            raise ValueError("has no effect without API_KEYS, because the API is then open to everyone")
        return keys

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
