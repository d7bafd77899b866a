"""What tells one mock provider from another; everything else, they have in common."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from mock_providers.backend import Backend
from mock_providers.webhooks import Payload


class OutboundMessage(BaseModel):
    """The fields every provider takes. Others may come along, and are recorded with them."""

    model_config = ConfigDict(extra="allow")

    from_: str = Field(alias="from", min_length=1)
    to: str = Field(min_length=1)
    body: str
    attachments: list[str] | None = Field(default=None, description="URLs")
    timestamp: AwareDatetime


@dataclass(frozen=True, kw_only=True)
class Contract:
    """One provider's side of the wire.

    Attributes:
        title: The provider's name, for people.
        id_field: The field that carries the provider's message id, in answers and in webhooks.
        id_prefix: What the ids it hands out begin with.
        outbound: What `POST /messages` takes.
        webhook_path: Where the gateway takes its inbound messages; receipts go to `…/status`.
        inbound_example: An inbound message around the fields that are given. It need not have
            those fields themselves, nor the id, nor the timestamp.
        real_api: The contract of a real provider, which it keeps as well.
        outcomes: What may be reported last of the messages that come by that.
    """

    title: str
    id_field: str
    id_prefix: str
    outbound: type[OutboundMessage]
    webhook_path: str
    inbound_example: Callable[[Payload], Payload]
    real_api: Callable[[Backend], APIRouter]
    outcomes: Collection[str]
