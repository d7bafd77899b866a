"""The bodies of responses. Timestamps are RFC 3339 in UTC, with a Z."""

from enum import StrEnum
from typing import Generic, Self, TypeVar
from uuid import UUID

from fastapi import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field

from shared.channels import Channel, Direction, MessageType
from shared.events import SuppressionChange, SuppressionSource, DeadLetter, Message
from shared.segments import Encoding, segments_of
from shared.lifecycle import Status


class View(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class ErrorView(View):
    """Why a message was not sent, or not delivered."""

    code: str = Field(examples=["http_500"])
    detail: str | None = None
    attempt: int | None = None
    provider: str | None = None
    status_code: int | None = None
    at: AwareDatetime | None = None


class MessageView(View):
    """A message of either direction."""

    id: UUID
    conversation_id: int | None = Field(description="Null until the message is stored", examples=[1])
    conversation_key: UUID
    direction: Direction
    type: MessageType
    from_: str = Field(alias="from", examples=["+12016661234"])
    to: str = Field(examples=["+18045551234"])
    subject: str | None = Field(description="Of an e-mail", examples=[None])
    body: str = Field(examples=["Hello!"])
    attachments: list[str] = Field(examples=[["https://example.com/cat.jpg"]])
    timestamp: AwareDatetime = Field(description="When it was written, as its sender says")
    status: Status = Field(examples=[Status.SENT])
    provider: str | None = Field(examples=["generic_sms"])
    provider_message_id: str | None = Field(description="The provider's own id for it", examples=["sms-4711"])
    error: ErrorView | None = Field(description="Of the latest attempt, if it failed", examples=[None])
    created_at: AwareDatetime = Field(description="When it was accepted")
    send_at: AwareDatetime | None = Field(
        description="Not to be sent before this, if it was asked for", examples=[None]
    )

    @computed_field(description="Parts that an SMS travels in; null for others", examples=[1])  # type: ignore[prop-decorator] # as pydantic has it
    @property
    def segments(self) -> int | None:
        return segments_of(self.body).count if self.type is MessageType.SMS else None

    @computed_field(description="Alphabet that an SMS travels in; null for others", examples=["GSM-7"])  # type: ignore[prop-decorator] # the same
    @property
    def encoding(self) -> Encoding | None:
        return segments_of(self.body).encoding if self.type is MessageType.SMS else None

    @classmethod
    def of(cls, message: Message, status: Status) -> Self:
        """Show a message that was accepted just now."""
        return cls(
            id=message.id,
            conversation_id=None,
            conversation_key=message.conversation_key,
            direction=message.direction,
            type=message.type,
            from_=message.from_,
            to=message.to,
            subject=message.subject,
            body=message.body,
            attachments=message.attachments,
            timestamp=message.timestamp,
            status=status,
            provider=message.provider,
            provider_message_id=message.provider_message_id,
            error=None,
            created_at=message.created_at,
            send_at=message.send_at,
        )


class HistoryEntry(View):
    """Something that happened to a message."""

    status: Status
    source: str = Field(description="`event` of this service, or `receipt` of the provider")
    generation: int = Field(description="0, and one more with each replay")
    attempt: int
    provider: str | None
    provider_message_id: str | None
    error: ErrorView | None
    next_attempt_at: AwareDatetime | None
    occurred_at: AwareDatetime


class MessageWithHistory(MessageView):
    history: list[HistoryEntry] = Field(description="In the order of its course")


class ConversationView(View):
    id: int = Field(description="Small, for people and URLs", examples=[1])
    key: UUID = Field(description="Computed from the participants, the same for ever")
    channel: Channel
    participants: list[str] = Field(examples=[["+12016661234", "+18045551234"]])
    message_count: int = Field(examples=[2])
    last_message_at: AwareDatetime | None
    last_message: MessageView | None


class DeadLetterState(StrEnum):
    """What became of a dead letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class ResolutionView(View):
    by: str = Field(description="Name of the API key", examples=["support"])
    at: AwareDatetime
    reason: str | None = Field(description="Of a discard", examples=["The customer was called"])


class DeadLetterView(DeadLetter):
    """Something that was given up, and what became of it since."""

    state: DeadLetterState
    resolution: ResolutionView | None = Field(
        description="Who replayed or discarded it; null also if that was done without saying who"
    )
    created_at: AwareDatetime


class DeadLetterWithHistory(DeadLetterView):
    history: list[HistoryEntry] = Field(description="Of its message, oldest first")


class Replay(View):
    """What a replay puts on its way."""

    dead_letter_id: UUID
    message_id: UUID | None
    generation: int | None = Field(description="Null for what goes back to its stream as it was", examples=[1])


class Discarded(View):
    """What nobody needs to look at any more."""

    dead_letter_id: UUID
    message_id: UUID | None


class Skipped(View):
    dead_letter_id: UUID
    reason: str = Field(examples=["Nothing is left of it that could be replayed"])


class BulkResult(View):
    """What was done with many dead letters, and whether more are left."""

    taken: int = Field(description="How many were replayed or discarded", examples=[100])
    skipped: list[Skipped] = Field(description="Those that it cannot be done with")
    next_cursor: str | None = Field(description="For the next call; null when no more are left")


class SuppressionView(View):
    """That somebody has opted out."""

    channel: Channel
    address: str = Field(description="Theirs", examples=["+18045551234"])
    sender: str | None = Field(
        description="The address of ours that they want nothing of; null for all", examples=["+12016661234"]
    )
    source: SuppressionSource = Field(description="What made it so")
    detail: str | None = Field(
        description="The text, the provider's reason, or that of a client", examples=["STOP"]
    )
    by: str | None = Field(description="Name of the API key, of a client", examples=[None])
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


class Received(View):
    """A webhook that is safe with us."""

    id: UUID = Field(description="Ours, the same each time the provider repeats itself")
    status: Status


Item = TypeVar("Item", bound=BaseModel)


class Page(View, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="For the next page; null on the last one")


def answer(view: BaseModel, status: int = 200, **headers: str) -> Response:
    """Respond with a view, written straight to bytes."""
    content = view.__pydantic_serializer__.to_json(view, by_alias=True)
    return Response(content, status, headers, media_type="application/json")
