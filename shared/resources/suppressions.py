"""Suppressions as the API shows them."""

from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import Row

from shared.channels import Channel
from shared.suppressions import SuppressionChange, SuppressionSource


class SuppressionResponse(BaseModel):
    """An address that is no longer sent messages."""

    channel: Channel
    address: str = Field(description="The recipient's address", examples=["+18045551234"])
    sender: str | None = Field(
        description="The sender address that the opt-out applies to, or the opt-out group of the provider, "
        "such as a Messaging Service; null for all sender addresses",
        examples=["+12016661234"],
    )
    source: SuppressionSource = Field(description="The cause of the opt-out")
    detail: str | None = Field(
        description="The text message, or the reason given by the provider or by the API's caller",
        examples=["STOP"],
    )
    by: str | None = Field(description="Name of the caller's API key, if the API was used", examples=[None])
    since: AwareDatetime

    @classmethod
    def of(cls, change: SuppressionChange) -> Self:
        return cls(
            channel=change.channel,
            address=change.theirs,
            sender=change.ours,
            source=change.source,
            detail=change.detail,
            by=change.by,
            since=change.occurred_at,
        )


def show_suppression(row: Row[Any]) -> SuppressionResponse:
    return SuppressionResponse.model_validate(row._mapping)  # noqa: SLF001 - public despite its name
