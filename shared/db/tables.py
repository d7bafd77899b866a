"""The tables: a projection of the streams, that ingest alone writes and the gateway reads.

Rows are facts and are inserted once; nothing in them is changed by what arrives later. What became of a
message is derived when it is read, from its events and receipts (the view `message_history`), so that the
order in which they arrived cannot matter. The one exception is what a trigger counts up on `conversations`.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
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
from sqlalchemy.types import UserDefinedType

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class TransactionId(UserDefinedType[str]):
    """PostgreSQL's `xid8`: which transaction wrote a row, comparable with a snapshot."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's way to say it
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: ARRAY(Text),
    }


class Participant(Base):
    """An address that takes part in conversations.

    Attributes:
        address: as it compares: E.164, or an e-mail address in lower case.
    """

    __tablename__ = "participants"
    __table_args__ = (
        CheckConstraint("length(address) BETWEEN 1 AND 320", name="address_length"),
        CheckConstraint("channel IN ('sms', 'email')", name="channel"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    address: Mapped[str] = mapped_column(unique=True)
    channel: Mapped[str]


class Conversation(Base):
    """The messages between the same participants.

    Attributes:
        id: a small integer, for people and URLs; handed out anew when the database is rebuilt.
        key: computed from the participants, the same everywhere and for ever.
        message_count, last_message_at, updated_at: kept by a trigger on `messages`.
        written_by: the transaction that changed the row last, which lets a reader who goes through the list
            page by page tell what has moved since they began.
    """

    __tablename__ = "conversations"
    __table_args__ = (
        Index("ix_conversations_last_message_at_id", text("last_message_at DESC"), text("id DESC")),
        Index("ix_conversations_written_by", "written_by"),
        CheckConstraint("channel IN ('sms', 'email')", name="channel"),
        CheckConstraint("message_count >= 0", name="message_count"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    key: Mapped[UUID] = mapped_column(unique=True)
    channel: Mapped[str]
    message_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    last_message_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    written_by: Mapped[str] = mapped_column(TransactionId(), server_default=text("pg_current_xact_id()"))

    participants: Mapped[list[Participant]] = relationship(
        secondary="conversation_participants", order_by=Participant.address, lazy="raise"
    )
    messages: Mapped[list["Message"]] = relationship(back_populates="conversation", lazy="raise")


class ConversationParticipant(Base):
    __tablename__ = "conversation_participants"
    __table_args__ = (
        Index("ix_conversation_participants_participant_id", "participant_id", "conversation_id"),
    )

    conversation_id: Mapped[int] = mapped_column(
        ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True
    )
    participant_id: Mapped[int] = mapped_column(ForeignKey("participants.id"), primary_key=True)


class Message(Base):
    """A message of either direction.

    Attributes:
        timestamp: when it was written, as its sender says; a conversation is read in this order.
        created_at: when the gateway accepted it; decides between messages of one timestamp.
        send_at: not to be sent before this, if it was asked for.
        written_by: the transaction that inserted the row.
        provider, provider_message_id: who delivered it to us; only of an inbound message.
    """

    __tablename__ = "messages"
    __table_args__ = (
        Index("ix_messages_conversation_id_timestamp", "conversation_id", "timestamp", "created_at", "id"),
        CheckConstraint("direction IN ('inbound', 'outbound')", name="direction"),
        CheckConstraint("type IN ('sms', 'mms', 'email')", name="type"),
        CheckConstraint(
            "direction = 'outbound' OR (provider IS NOT NULL AND provider_message_id IS NOT NULL)",
            name="inbound_has_provider",
        ),
        UniqueConstraint("provider", "provider_message_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
    direction: Mapped[str]
    type: Mapped[str]
    from_address: Mapped[str]
    to_address: Mapped[str]
    subject: Mapped[str | None]
    body: Mapped[str]
    attachments: Mapped[list[str]]
    timestamp: Mapped[datetime]
    created_at: Mapped[datetime]
    send_at: Mapped[datetime | None]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    written_by: Mapped[str] = mapped_column(TransactionId(), server_default=text("pg_current_xact_id()"))

    conversation: Mapped[Conversation] = relationship(back_populates="messages", lazy="raise")


class MessageEvent(Base):
    """What our services did with a message, step by step.

    There is no foreign key to `messages`: an event may well be stored before its message.
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
        Index(
            "ix_message_events_scheduled",
            "next_attempt_at",
            "message_id",
            postgresql_where=text("status = 'scheduled'"),
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
    """What a provider reported of a message that it had taken.

    It is found by the provider's own id for the message, or by ours if the provider gave that back.
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
    status: Mapped[str]
    precedence: Mapped[int]
    error_code: Mapped[str | None]
    occurred_at: Mapped[datetime]
    message_id: Mapped[UUID | None]
    error_detail: Mapped[str | None]


class DeadLetter(Base):
    """Something that was given up: `content` is the whole dead letter as the stream has it.

    What became of it since is no column: its resolutions say so, or a later generation of its message.
    """

    __tablename__ = "dead_letters"
    __table_args__ = (
        Index("ix_dead_letters_created_at", text("created_at DESC"), text("id DESC")),
        Index("ix_dead_letters_message_id", "message_id", postgresql_where=text("message_id IS NOT NULL")),
        CheckConstraint("direction IN ('inbound', 'outbound')", name="direction"),
        CheckConstraint("channel IN ('sms', 'email')", name="channel"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    direction: Mapped[str]
    channel: Mapped[str | None]
    reason: Mapped[str]
    message_id: Mapped[UUID | None]
    generation: Mapped[int]
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class DeadLetterResolution(Base):
    """What somebody did about a dead letter; at most one row for each thing that can be done.

    There is no foreign key to `dead_letters`: a resolution may well be stored before its dead letter.
    """

    __tablename__ = "dead_letter_resolutions"
    __table_args__ = (
        CheckConstraint("resolution IN ('replayed', 'discarded')", name="resolution"),
        CheckConstraint("resolution <> 'discarded' OR reason IS NOT NULL", name="discard_has_reason"),
    )

    dead_letter_id: Mapped[UUID] = mapped_column(primary_key=True)
    resolution: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str | None]
    resolved_by: Mapped[str]
    resolved_at: Mapped[datetime]


class SuppressionChange(Base):
    """That somebody opted out, or in again; of the changes with one `key` the latest holds.

    Attributes:
        key: computed from `ours` and `theirs`.
        ours: the address of ours that it is about, as it compares; null for all of them.
        theirs: who opted out, as it compares.
    """

    __tablename__ = "suppression_changes"
    __table_args__ = (
        Index("ix_consent_changes_key_occurred_at", "key", "occurred_at"),
        Index("ix_consent_changes_theirs", "theirs"),
        Index(
            "ix_consent_changes_opted_out",
            text("occurred_at DESC"),
            text("id DESC"),
            postgresql_where=text("state = 'opted_out'"),
        ),
        CheckConstraint("channel IN ('sms', 'email')", name="channel"),
        CheckConstraint("state IN ('opted_out', 'opted_in')", name="state"),
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
