"""The bodies of requests and responses for webhook endpoints."""

import re
from datetime import datetime
from ipaddress import ip_address
from typing import Annotated, Any, Self
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from yarl import URL

from services.gateway.http.pagination import Cursor, PageParameters
from services.gateway.http.parameters import MAX_BIGINT
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel
from shared.notifications import NotificationType
from shared.public_addresses import PUBLIC_PORTS, is_public
from shared.resources.webhook_endpoints import EndpointState, WebhookEndpointResponse, fields_of
from shared.validation import Metadata, Moment, Text
from shared.webhook_attempts import Trigger
from shared.webhook_endpoints import WebhookEndpoint

_MAX_URL = 2_048
_MAX_HOST = 253
_MAX_FILTERS = 100
_MAX_DESCRIPTION = 500
_MAX_RECOVERED = 1_000

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")


_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_WEB_URL = re.compile(
    rf"[hH][tT][tT][pP][sS]?://(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?"
    "(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)
"""A URL without credentials or a fragment, in the characters that RFC 3986 allows."""

_NUMBER = re.compile("[0-9]+|0[xX][0-9A-Fa-f]*")
"""The last label of an IPv4 address, also of one in a notation that only some resolvers read (WHATWG URL)."""


def _web_url(value: str) -> str:
    if not value.isascii():
        raise ValueError(
            "is not ASCII: write an international host name as A-labels (xn--…), and percent-encode other "
            "characters"
        )
    try:
        url = URL(value)  # as the notifier parses it
        has_more = url.user is not None or "#" in value
        is_valid = _WEB_URL.fullmatch(value) and url.port != 0 and _is_host(url.host or "")
    except ValueError:
        has_more, is_valid = False, False
    if has_more:
        raise ValueError("must not contain credentials or a fragment")
    if not is_valid:
        raise ValueError("is not an http or https URL (RFC 3986)")
    return value


def _is_host(host: str) -> bool:
    """Return whether a host is a name of a valid length, or an address. Raises ValueError for another one."""
    is_address = ":" in host or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])
    return bool(ip_address(host)) if is_address else len(host) <= _MAX_HOST


def require_public(url: str) -> None:
    """Raise ValueError if a URL alone shows that it does not lead to the public internet by HTTPS.

    The addresses of its host are checked again at each attempt.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or (parts.port or 443) not in PUBLIC_PORTS:
        raise ValueError("must be an https URL with the standard port")
    try:
        address = str(ip_address(parts.hostname or ""))
    except ValueError:
        is_allowed = parts.hostname != "localhost"
    else:
        is_allowed = is_public(address)
    if not is_allowed:
        raise ValueError("is not on the public internet")


EndpointUrl = Annotated[
    str,
    Field(
        max_length=_MAX_URL,
        description="The URL that events are posted to, by HTTPS and on the public internet. It must be "
        "ASCII: write an international host name as A-labels (`xn--…`)",
        examples=["https://example.com/webhooks"],
        json_schema_extra={"format": "uri", "pattern": "^[hH][tT][tT][pP][sS]?://[!-~]+$"},
    ),
    AfterValidator(_web_url),
]
EventTypes = Annotated[
    list[Annotated[NotificationType, Field(strict=False)]],
    Field(
        max_length=_MAX_FILTERS,
        description="The types of events to send; all types if it is empty",
        examples=[["message.received", "message.failed"]],
    ),
]
Channels = Annotated[
    list[Annotated[Channel, Field(strict=False)]],
    Field(max_length=len(Channel), description="The channels whose events are sent; all if it is empty"),
]
Addresses = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_ADDRESS_LENGTH)]],
    Field(
        max_length=_MAX_FILTERS,
        description="Your own addresses whose events are sent; all if it is empty",
        examples=[["+12016661234"]],
    ),
]
Description = Annotated[Text, Field(max_length=_MAX_DESCRIPTION, examples=["Support desk"])]
EndpointMetadata = Annotated[Metadata, Field(description="Your own data", examples=[{"team": "support"}])]


class WebhookEndpointCreate(BaseModel):
    """A webhook endpoint to create."""

    model_config = ConfigDict(
        **_STRICT,
        json_schema_extra={
            "examples": [{"url": "https://example.com/webhooks", "event_types": ["message.received"]}]
        },
    )

    url: EndpointUrl
    event_types: EventTypes = Field(default_factory=list)
    channels: Channels = Field(default_factory=list)
    addresses: Addresses = Field(default_factory=list)
    description: Description = ""
    metadata: EndpointMetadata = Field(default_factory=dict)


class WebhookEndpointUpdate(BaseModel):
    """Changes to a webhook endpoint; a field that is missing is left as it is."""

    model_config = ConfigDict(**_STRICT, json_schema_extra={"examples": [{"state": "disabled"}]})

    # A factory, because the document must not show a default: a missing field is not replaced by it.
    url: EndpointUrl = Field(default_factory=str)
    event_types: EventTypes = Field(default_factory=list)
    channels: Channels = Field(default_factory=list)
    addresses: Addresses = Field(default_factory=list)
    description: Description = Field(default_factory=str)
    metadata: EndpointMetadata = Field(default_factory=dict)
    state: Annotated[EndpointState, Field(strict=False)] = Field(
        default_factory=lambda: EndpointState.ENABLED,
        description="Events that occur while an endpoint is disabled are not sent, but can be recovered",
    )


class WebhookEndpointWithSecret(WebhookEndpointResponse):
    """A webhook endpoint with its secret, which is shown only once."""

    secret: str = Field(
        description="The secret that webhooks are signed with (Standard Webhooks). It is not shown again",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    @classmethod
    def with_secret(cls, endpoint: WebhookEndpoint, secret: str, now: datetime) -> Self:
        return cls(**fields_of(endpoint, now), secret=secret)


EndpointParameters = Annotated[PageParameters, Query()]


class EndpointCursor(Cursor):
    created_at: AwareDatetime
    id: UUID

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> Self:
        return cls(created_at=endpoint.created_at, id=endpoint.id)


class WebhookAttemptResponse(BaseModel):
    """An attempt to deliver an event."""

    id: UUID
    event_id: UUID = Field(description="The `webhook-id` of the request")
    event_type: str = Field(examples=["message.received"])
    attempt: int = Field(description="The number of the attempt, from 1", examples=[1])
    trigger: Trigger = Field(description="The cause: an event, or a request to the API")
    started_at: AwareDatetime
    duration_ms: int = Field(examples=[85])
    succeeded: bool = Field(description="Whether the response had a status of 2xx")
    status_code: int | None = Field(description="Status of the response; null without one", examples=[204])
    error: str | None = Field(description="Code of the failure, if there was one", examples=[None])
    response: str = Field(
        description="The beginning of the response's body, or a description of the failure", examples=[""]
    )
    next_attempt_at: AwareDatetime | None = Field(
        description="Time of the next attempt; null if there is none", examples=[None]
    )


class AttemptQuery(PageParameters):
    """Filters of the attempts."""

    succeeded: bool | None = Field(default=None, description="Whether the attempts were successful")
    event_id: UUID | None = Field(default=None, description="The event that was sent")


AttemptParameters = Annotated[AttemptQuery, Query()]


class AttemptCursor(Cursor):
    started_at: AwareDatetime
    id: UUID

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(started_at=row.started_at, id=row.id)


class DeliveryResponse(BaseModel):
    """An event that is about to be sent. The outcome is among the attempts of the endpoint."""

    event_id: UUID = Field(description="The `webhook-id` of the request")


class RecoverRequest(BaseModel):
    """A request to send the events that an endpoint has never received."""

    model_config = ConfigDict(**_STRICT, json_schema_extra={"examples": [{"since": "2024-11-01T14:00:00Z"}]})

    since: Moment = Field(description="The time since which events are sent (RFC 3339)")
    limit: int = Field(
        default=_MAX_RECOVERED, ge=1, le=_MAX_RECOVERED, description="Maximum number of events to send"
    )
    after: int = Field(
        default=0, ge=0, le=MAX_BIGINT, description="`next_after` of the previous response", examples=[0]
    )


class RecoverResponse(BaseModel):
    """The events that are about to be sent."""

    scheduled: int = Field(description="Number of events that will be sent", examples=[12])
    next_after: int | None = Field(
        description="Repeat the request with this as `after`, until it is null", examples=[None]
    )
