"""The tables: a projection of the streams that only ingest writes and only the gateway reads.

Each row records a fact; it is inserted once and never changed. The status of a message follows from its
events and receipts (the view `message_history`), so that their order of arrival does not matter. Triggers
maintain the exceptions, in the transaction that inserts the facts: `message_states`, the columns by which
conversations and dead letters are listed, `participant_messages`, `message_metadata` and `suppressions`. They
also fill `notification_outbox`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel, Direction, MessageType
from shared.dead_letters import Resolution
from shared.media import MediaStatus
from shared.message import Priority
from shared.status import Status
from shared.suppressions import SuppressionState

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def _is_one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """Return the constraint that a column has one of the values; a new value needs a migration."""
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy declares it so
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: ARRAY(Text),
    }


class Participant(Base):
    """An address that takes part in conversations of a channel.

    Attributes:
        address: the key of the address.
    """

    __tablename__ = "participants"
    __table_args__ = (
        UniqueConstraint("address", "channel"),
        CheckConstraint(f"length(address) BETWEEN 1 AND {MAX_ADDRESS_LENGTH}", name="address_length"),
        _is_one_of("channel", Channel),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    address: Mapped[str]
    channel: Mapped[str]


class Conversation(Base):
    """The messages between the same participants in a channel.

    Attributes:
        id: a small number for people and URLs; it changes when the database is rebuilt.
        key: computed from the channel and the participants, so that it is the same everywhere and always.
        message_count, last_message_at: maintained by the triggers on `messages`.
    """

    __tablename__ = "conversations"
    __table_args__ = (
        # Each message changes the row. Only this index contains a column that changes; any other index like
        # it would make each message more expensive.
        Index(
            "ix_conversations_channel_last_message_at",
            "channel",
            text("last_message_at DESC"),
            text("id DESC"),
        ),
        _is_one_of("channel", Channel),
        CheckConstraint("message_count >= 0", name="message_count"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    key: Mapped[UUID] = mapped_column(unique=True)
    channel: Mapped[str]
    message_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    last_message_at: Mapped[datetime | None]

    participants: Mapped[list[Participant]] = relationship(
        secondary="conversation_participants", order_by=Participant.address, lazy="raise"
    )
    messages: Mapped[list["Message"]] = relationship(back_populates="conversation", lazy="raise")


class ConversationParticipant(Base):
    """A participant of a conversation.

    Attributes:
        last_message_at: that of the conversation, by which those of a participant are listed; maintained by
            the triggers on `messages`.
    """

    __tablename__ = "conversation_participants"
    __table_args__ = (
        Index(
            "ix_conversation_participants_last_message_at",
            "participant_id",
            text("last_message_at DESC"),
            text("conversation_id DESC"),
        ),
    )

    conversation_id: Mapped[int] = mapped_column(
        ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True
    )
    participant_id: Mapped[int] = mapped_column(ForeignKey("participants.id"), primary_key=True)
    last_message_at: Mapped[datetime | None]


class Message(Base):
    """A message of either direction; see `shared.message.Message`.

    Attributes:
        timestamp: when the message was written, according to its sender; if that is plausible, it orders a
            conversation (`place_in_time`).
        created_at: when the gateway accepted the message; it orders those that were written at the same time.
        email: the fields `EMAIL_FIELDS` that have a value; null if there are none.
        metadata_: the column `metadata`, whose name SQLAlchemy reserves.
    """

    __tablename__ = "messages"
    __table_args__ = (
        Index(
            "ix_messages_conversation_id_place",
            "conversation_id",
            text('place_in_time("timestamp", created_at)'),
            "created_at",
            "id",
        ),
        Index("ix_messages_channel_direction_created_at", "channel", "direction", "created_at", "id"),
        Index("ix_messages_conversation_id_created_at", "conversation_id", "created_at", "id"),
        Index(
            "ix_messages_reference",
            "reference",
            "created_at",
            "id",
            postgresql_where=text("reference IS NOT NULL"),
        ),
        Index(
            "ix_messages_provider",
            "provider",
            "created_at",
            "id",
            postgresql_where=text("provider IS NOT NULL"),
        ),
        _is_one_of("channel", Channel),
        _is_one_of("direction", Direction),
        _is_one_of("type", MessageType),
        CheckConstraint(
            f"direction = '{Direction.OUTBOUND}'"
            " OR (provider IS NOT NULL AND provider_message_id IS NOT NULL)",
            name="inbound_has_provider",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
    channel: Mapped[str]
    direction: Mapped[str]
    type: Mapped[str]
    from_address: Mapped[str]
    to_address: Mapped[str]
    recipients: Mapped[list[str]] = mapped_column(server_default="{}")
    subject: Mapped[str | None]
    body: Mapped[str]
    attachments: Mapped[list[str]]
    timestamp: Mapped[datetime]
    created_at: Mapped[datetime]
    send_at: Mapped[datetime | None]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    priority: Mapped[str] = mapped_column(server_default=Priority.TRANSACTIONAL)
    warnings: Mapped[list[str]] = mapped_column(server_default="{}")
    email: Mapped[dict[str, Any] | None]
    reference: Mapped[str | None]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")

    conversation: Mapped[Conversation] = relationship(back_populates="messages", lazy="raise")


class ParticipantMessage(Base):
    """A message of a participant, in either direction; a trigger on `messages` inserts it."""

    __tablename__ = "participant_messages"

    participant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(primary_key=True)
    message_id: Mapped[UUID] = mapped_column(primary_key=True)


class MessageMetadata(Base):
    """A key of the metadata of a message; a trigger on `messages` inserts it."""

    __tablename__ = "message_metadata"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(primary_key=True)
    message_id: Mapped[UUID] = mapped_column(primary_key=True)


class Media(Base):
    """A file of an inbound message; one row for each status that it has had. See `shared.media.Media`.

    There is no foreign key to `messages`, since a report may be stored before its message.
    """

    __tablename__ = "media"
    __table_args__ = (
        Index("ix_media_message_id", "message_id"),
        _is_one_of("status", MediaStatus),
        CheckConstraint(
            f"status <> '{MediaStatus.STORED}' OR (digest IS NOT NULL AND size IS NOT NULL)",
            name="stored_has_digest",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)
    message_id: Mapped[UUID]
    position: Mapped[int]
    url: Mapped[str | None]
    content_type: Mapped[str | None]
    size: Mapped[int | None] = mapped_column(BigInteger)
    filename: Mapped[str | None]
    digest: Mapped[str | None]
    reason: Mapped[str | None]


class MessageEvent(Base):
    """A report by our services on an outbound message.

    There is no foreign key to `messages`, since an event may be stored before its message.
    """

    __tablename__ = "message_events"
    __table_args__ = (
        Index("ix_message_events_message_id", "message_id"),
        Index(
            "ix_message_events_provider_message",
            "provider",
            "provider_message_id",
            postgresql_where=text("provider_message_id IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[UUID]
    status: Mapped[str]
    generation: Mapped[int]
    precedence: Mapped[int]
    attempt: Mapped[int]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    next_attempt_at: Mapped[datetime | None]
    occurred_at: Mapped[datetime]


class DeliveryReceipt(Base):
    """A provider's report on a message that it had accepted.

    Its message is found by the provider's id of the message, or by ours if the provider returns that.
    """

    __tablename__ = "delivery_receipts"
    __table_args__ = (
        Index("ix_delivery_receipts_provider_message", "provider", "provider_message_id"),
        Index(
            "ix_delivery_receipts_message_id", "message_id", postgresql_where=text("message_id IS NOT NULL")
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    provider: Mapped[str]
    provider_message_id: Mapped[str]
    message_id: Mapped[UUID | None]
    status: Mapped[str]
    precedence: Mapped[int]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    occurred_at: Mapped[datetime]


class DeadLetter(Base):
    """A dead letter, whose `content` is the dead letter as it is in the stream.

    Attributes:
        state: `open`, `replayed` or `discarded`. It follows from its resolutions, or from a later generation
            of its message; triggers on all three tables maintain it.
    """

    __tablename__ = "dead_letters"
    __table_args__ = (
        Index("ix_dead_letters_state_created_at", "state", text("created_at DESC"), text("id DESC")),
        Index(
            "ix_dead_letters_reason_state_created_at",
            "reason",
            "state",
            text("created_at DESC"),
            text("id DESC"),
        ),
        Index("ix_dead_letters_message_id", "message_id", postgresql_where=text("message_id IS NOT NULL")),
        _is_one_of("direction", Direction),
        _is_one_of("channel", Channel),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    direction: Mapped[str]
    channel: Mapped[str | None]
    reason: Mapped[str]
    message_id: Mapped[UUID | None]
    generation: Mapped[int]
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(server_default="open")


class DeadLetterResolution(Base):
    """A person's decision about a dead letter; at most one row for each kind of decision.

    There is no foreign key to `dead_letters`, since a resolution may be stored before its dead letter.
    """

    __tablename__ = "dead_letter_resolutions"
    __table_args__ = (
        _is_one_of("resolution", Resolution),
        CheckConstraint(
            f"resolution <> '{Resolution.DISCARDED}' OR reason IS NOT NULL", name="discard_has_reason"
        ),
    )

    dead_letter_id: Mapped[UUID] = mapped_column(primary_key=True)
    resolution: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str | None]
    resolved_by: Mapped[str]
    resolved_at: Mapped[datetime]


class SuppressionChange(Base):
    """An opt-out or an opt-in; of the changes with the same `key`, the latest applies.

    Attributes:
        key: computed from the channel, `ours` and `theirs`.
        ours: the key of our address that the change concerns; null for all our addresses.
        theirs: the key of the recipient's address.
    """

    __tablename__ = "suppression_changes"
    __table_args__ = (
        Index("ix_suppression_changes_key_occurred_at", "key", "occurred_at"),
        _is_one_of("channel", Channel),
        _is_one_of("state", SuppressionState),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[UUID]
    channel: Mapped[str]
    ours: Mapped[str | None]
    theirs: Mapped[str]
    state: Mapped[str]
    source: Mapped[str]
    detail: Mapped[str | None]
    changed_by: Mapped[str | None]
    occurred_at: Mapped[datetime]


class Suppression(Base):
    """The change that applies to a pair of addresses; a trigger on `suppression_changes` maintains it.

    Attributes:
        change_id: the id of the change, which has all details.
    """

    __tablename__ = "suppressions"
    __table_args__ = (
        Index(
            "ix_suppressions_channel_occurred_at",
            "channel",
            text("occurred_at DESC"),
            text("change_id DESC"),
            postgresql_where=text(f"state = '{SuppressionState.OPTED_OUT}'"),
        ),
        Index(
            "ix_suppressions_theirs",
            "theirs",
            text("occurred_at DESC"),
            text("change_id DESC"),
            postgresql_where=text(f"state = '{SuppressionState.OPTED_OUT}'"),
        ),
    )

    key: Mapped[UUID] = mapped_column(primary_key=True)
    change_id: Mapped[UUID]
    channel: Mapped[str]
    theirs: Mapped[str]
    state: Mapped[str]
    occurred_at: Mapped[datetime]


class MessageState(Base):
    """The decisive report on an outbound message: the one of its history that has the highest rank.

    The row is inserted once the message is stored. It is kept if the message is deleted, which a replay of
    its stream may store again.

    Attributes:
        created_at: that of the message, by which lists are ordered; a trigger sets it.
    """

    __tablename__ = "message_states"
    __table_args__ = (
        Index("ix_message_states_status", "status", "created_at", "message_id"),
        Index(
            "ix_message_states_provider",
            "provider",
            "created_at",
            "message_id",
            postgresql_where=text("provider IS NOT NULL"),
        ),
        Index(
            "ix_message_states_error_code",
            text("(error ->> 'code')"),
            "created_at",
            "message_id",
            postgresql_where=text("(error ->> 'code') IS NOT NULL"),
        ),
        Index(
            "ix_message_states_scheduled",
            "next_attempt_at",
            "message_id",
            postgresql_where=text(f"status = '{Status.SCHEDULED}'"),
        ),
    )

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID]
    source: Mapped[str]
    status: Mapped[str]
    generation: Mapped[int]
    precedence: Mapped[int]
    attempt: Mapped[int]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    next_attempt_at: Mapped[datetime | None]
    occurred_at: Mapped[datetime]
    created_at: Mapped[datetime | None]


class OutboxNotification(Base):
    """A notification that is to be published; see `shared.notifications`.

    Attributes:
        cause: what happened; the notification's id is computed from it and from the type.
        content: the other fields, with the spelling of our address (`our_spelling`) where its key is unknown.
    """

    __tablename__ = "notification_outbox"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    type: Mapped[str]
    cause: Mapped[str]
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class Traffic(Base):
    """The number of messages in a minute; the rows of the last day are kept.

    Attributes:
        provider: empty if no provider is known.
        kind: `received`, or a status that messages have got.
    """

    __tablename__ = "traffic"

    minute: Mapped[datetime] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class WebhookAttempt(Base):
    """An attempt to deliver an event to a webhook endpoint; see `shared.webhook_attempts.WebhookAttempt`.

    Ingest deletes it when it is thirty days old.
    """

    __tablename__ = "webhook_attempts"
    __table_args__ = (
        Index("ix_webhook_attempts_newest", "endpoint_id", text("started_at DESC"), text("id DESC")),
        Index(
            "ix_webhook_attempts_succeeded",
            "endpoint_id",
            "succeeded",
            text("started_at DESC"),
            text("id DESC"),
        ),
        Index("ix_webhook_attempts_event", "endpoint_id", "event_id"),
        Index("ix_webhook_attempts_started_at", "started_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    endpoint_id: Mapped[UUID]
    event_id: Mapped[UUID]
    event_type: Mapped[str]
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    attempt: Mapped[int]
    trigger: Mapped[str]
    started_at: Mapped[datetime]
    duration_ms: Mapped[int]
    succeeded: Mapped[bool]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    response: Mapped[str]
    next_attempt_at: Mapped[datetime | None]
