"""What tells one mock provider from another; everything else, they have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

Payload = dict[str, JsonValue]


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
    """

    title: str
    id_field: str
    id_prefix: str
    outbound: type[OutboundMessage]
    webhook_path: str
    inbound_example: Callable[[Payload], Payload]
