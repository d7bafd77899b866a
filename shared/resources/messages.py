"""Messages as the API shows them. The columns of the queries have the names of the response's fields."""

from collections.abc import Sequence
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    computed_field,
    field_validator,
)
from sqlalchemy import ColumnElement, FromClause, Row, Select, case, func, literal_column, select, true

from shared.addresses import Address
from shared.channels import Direction, MessageType
from shared.db.tables import Conversation, Media, MessageState
from shared.db.tables import Message as MessageTable
from shared.db.views import message_history
from shared.media import MediaStatus, latest_of
from shared.message import EMAIL_FIELDS, BodyType, Message, Priority
from shared.segments import Encoding, segments_of
from shared.status import Status

Statement = Select[Any]

_message = MessageTable.__table__
_conversation = Conversation.__table__
_media = Media.__table__
_state = MessageState.__table__

MESSAGE_WITH_CONVERSATION = _message.join(_conversation)

Mailboxes = Annotated[
    list[Annotated[Address, PlainSerializer(lambda address: address.mailbox, return_type=str)]],
    BeforeValidator(lambda given: given or []),
    Field(examples=[[]]),
]


class ErrorResponse(BaseModel):
    """The reason why a message was not sent, or not delivered."""

    code: str = Field(examples=["http_500"])
    detail: str | None = None
    attempt: int | None = None
    provider: str | None = None
    status_code: int | None = None
    at: AwareDatetime | None = None


class MediaResponse(BaseModel):
    """A file of an inbound message."""

    id: UUID
    status: MediaStatus = Field(description="Whether the file can be downloaded from `url`")
    content_type: str | None = Field(description="Media type, as declared", examples=["image/jpeg"])
    size: int | None = Field(description="Size in bytes", examples=[48_213])
    filename: str | None = Field(description="Name without a path, as declared", examples=["cat.jpg"])
    reason: str | None = Field(description="Error code, if the file could not be fetched", examples=[None])

    @computed_field(description="Path of the file at this service", examples=["/api/media/…"])  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def url(self) -> str:
        return f"/api/media/{self.id}"


def _latest_media(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [media.model_dump() for media in latest_of(rows or [])]


class MessageResponse(BaseModel):
    """A message of either direction."""

    model_config = ConfigDict(populate_by_name=True)

    id: UUID
    conversation_id: int | None = Field(description="Null until the message is stored", examples=[1])
    conversation_key: UUID
    direction: Direction = Field(examples=[Direction.OUTBOUND])
    type: MessageType
    from_: str = Field(alias="from", examples=["+12016661234"])
    to: str = Field(description="The recipient; the first one of a group", examples=["+18045551234"])
    recipients: list[str] = Field(
        description="All recipients: those of a group, or only `to`", examples=[["+18045551234"]]
    )
    from_name: str | None = Field(description="Display name of the author of an e-mail", examples=[None])
    to_name: str | None = Field(description="Display name of its recipient", examples=[None])
    subject: str | None = Field(description="Subject of an e-mail", examples=[None])
    body: str = Field(examples=["Hello!"])
    body_type: BodyType | None = Field(
        description="Type of the body of an e-mail, if it was declared", examples=[None]
    )
    text: str | None = Field(description="Plain text beside the HTML body of an e-mail", examples=[None])
    reply_to: Mailboxes = Field(description="Where replies to an e-mail should be sent")
    cc: Mailboxes = Field(description="Further recipients of an e-mail, with their display names")
    bcc: Mailboxes = Field(description="Further recipients, hidden from each other")
    attachments: list[str] = Field(description="The URLs of files", examples=[[]])
    media: Annotated[list[MediaResponse], BeforeValidator(_latest_media)] = Field(
        description="The files of an inbound message", examples=[[]]
    )
    timestamp: AwareDatetime = Field(description="When the message was written, according to its sender")
    status: Status = Field(examples=[Status.SENT])
    provider: str | None = Field(examples=["generic_sms"])
    provider_message_id: str | None = Field(
        description="The provider's id for the message", examples=["sms-4711"]
    )
    error: ErrorResponse | None = Field(
        description="Error of the latest attempt, if it failed", examples=[None]
    )
    created_at: AwareDatetime = Field(description="When the message was accepted")
    send_at: AwareDatetime | None = Field(
        description="The time before which the message is not sent, if one was requested", examples=[None]
    )
    priority: Priority = Field(examples=[Priority.TRANSACTIONAL])
    warnings: list[str] = Field(
        description="The parts of an inbound message that could not be read, in words", examples=[[]]
    )
    reference: str | None = Field(description="The sender's own id for the message", examples=["order-17"])
    metadata: Annotated[dict[str, str], BeforeValidator(lambda given: given or {})] = Field(
        description="The sender's own data about the message", examples=[{"customer": "4711"}]
    )

    @field_validator("recipients")
    @classmethod
    def _include_single_recipient(cls, recipients: list[str], info: ValidationInfo) -> list[str]:
        return recipients or [info.data["to"]]

    @computed_field(description="Number of segments of an SMS; null for other messages", examples=[1])  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def segments(self) -> int | None:
        return segments_of(self.body).count if self._is_sms else None

    @computed_field(description="Encoding of an SMS; null for other messages", examples=["GSM-7"])  # type: ignore[prop-decorator] # the same
    @property
    def encoding(self) -> Encoding | None:
        return segments_of(self.body).encoding if self._is_sms else None

    @property
    def _is_sms(self) -> bool:
        # Earlier versions kept the type sms of messages that were sent as MMS because of their attachments.
        return self.type is MessageType.SMS and not self.attachments

    @classmethod
    def of(cls, message: Message, status: Status) -> Self:
        """Return the response for a message that was just accepted."""
        derived: dict[str, Any] = {"conversation_id": None, "status": status, "error": None, "media": []}
        # Iterating over the message would take longer than the validation.
        return cls.model_validate({**vars(message), **derived})


def show_message(row: Row[Any]) -> MessageResponse:
    return MessageResponse.model_validate(row._mapping)  # noqa: SLF001 - public in SQLAlchemy despite its name


def place_of(message: FromClause) -> Sequence[ColumnElement[Any]]:
    """Return the columns that order the messages of a conversation."""
    placed_at = func.place_in_time(message.c.timestamp, message.c.created_at)
    return placed_at, message.c.created_at, message.c.id


def last_messages_of(conversation_ids: Sequence[int]) -> Statement:
    """Select the newest message of each conversation."""
    newest = (
        select(_message)
        .where(_message.c.conversation_id == _conversation.c.id)
        .order_by(*(column.desc() for column in place_of(_message)))
        .limit(1)
        .lateral("newest")
    )
    source = _conversation.join(newest, true())
    return select_messages(newest, source).where(_conversation.c.id.in_(conversation_ids))


def initial_status(message: FromClause) -> ColumnElement[str]:
    """Return the status of a message without reports."""
    is_inbound = message.c.direction == Direction.INBOUND.value
    return case((is_inbound, Status.RECEIVED.value), else_=Status.ACCEPTED.value)


def select_messages(
    message: FromClause = _message, source: FromClause = MESSAGE_WITH_CONVERSATION
) -> Statement:
    """Select the fields of a response: columns of the same names, and the fields that depend on the state.

    Args:
        message: the table or subquery of the messages.
        source: a join of `message` with its conversation.
    """
    state, sent = _state.alias("state"), _last_sent(message)
    return _select_fields(
        message,
        source.outerjoin(state, state.c.message_id == message.c.id).outerjoin(sent, true()),
        status=func.coalesce(state.c.status, initial_status(message)),
        provider=func.coalesce(message.c.provider, sent.c.provider),
        provider_message_id=func.coalesce(message.c.provider_message_id, sent.c.provider_message_id),
        error=state.c.error,
    )


def select_constant_fields() -> Statement:
    """Select the fields of messages that never change, and their place in the conversation (`placed_at`)."""
    placed_at, *_ = place_of(_message)
    return _select_fields(_message, MESSAGE_WITH_CONVERSATION).add_columns(placed_at.label("placed_at"))


def _select_fields(message: FromClause, source: FromClause, **depending: ColumnElement[Any]) -> Statement:
    derived: dict[str, Any] = {
        **{name: message.c.email[name] for name in EMAIL_FIELDS},
        "from_": message.c.from_address,
        "to": message.c.to_address,
        "conversation_key": _conversation.c.key,
        "media": _media_of(message),
        **depending,
    }
    own = [
        column
        for column in message.c
        if column.key in MessageResponse.model_fields and column.key not in derived
    ]
    return select(*own, *(column.label(name) for name, column in derived.items())).select_from(source)


def _media_of(message: FromClause) -> ColumnElement[Any]:
    """Return the rows of a message's files as JSON, or null if there are none."""
    rows = select(func.jsonb_agg(func.to_jsonb(literal_column("media"))))
    return rows.select_from(_media).where(_media.c.message_id == message.c.id).scalar_subquery()


def _last_sent(message: FromClause) -> FromClause:
    """Select the last report that a provider has accepted the message."""
    entry = message_history.c
    return (
        select(message_history)
        .where(entry.message_id == message.c.id, entry.status == Status.SENT.value)
        .order_by(
            entry.generation.desc(),
            entry.precedence.desc(),
            entry.attempt.desc(),
            entry.occurred_at.desc(),
            entry.event_id,
        )
        .limit(1)
        .lateral("sent")
    )
