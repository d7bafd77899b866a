"""Webhook endpoints as the API shows them."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from shared.channels import Channel
from shared.webhook_endpoints import DisabledReason, WebhookEndpoint


class EndpointState(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


class WebhookEndpointResponse(BaseModel):
    """A webhook endpoint."""

    id: UUID
    url: str = Field(examples=["https://example.com/webhooks"])
    event_types: list[str] = Field(examples=[["message.received"]])
    channels: list[Channel] = Field(examples=[[]])
    addresses: list[str] = Field(examples=[[]])
    description: str = Field(examples=["Support desk"])
    metadata: dict[str, str] = Field(examples=[{"team": "support"}])
    state: EndpointState
    disabled_reason: DisabledReason | None = Field(
        description="`requested` by the API, `gone` after a response of 410, or `failing` for five days",
        examples=[None],
    )
    disabled_at: AwareDatetime | None = Field(examples=[None])
    former_secret_expires_at: AwareDatetime | None = Field(
        description="The time until which webhooks are also signed with a former secret", examples=[None]
    )
    created_at: AwareDatetime
    updated_at: AwareDatetime

    @classmethod
    def of(cls, endpoint: WebhookEndpoint, now: datetime) -> Self:
        return cls(**fields_of(endpoint, now))


def fields_of(endpoint: WebhookEndpoint, now: datetime) -> dict[str, Any]:
    """Return the fields of the response."""
    former = [secret.expires_at for secret in endpoint.secrets_at(now) if secret.expires_at]
    return {
        **endpoint.model_dump(exclude={"secrets", "request_digest"}),
        "state": EndpointState.ENABLED if endpoint.is_enabled else EndpointState.DISABLED,
        "former_secret_expires_at": max(former, default=None),
    }
