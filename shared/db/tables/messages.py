"""The tables of messages, and of what belongs to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.channels import Channel, Direction, MessageType
from shared.db.tables.base import Base, is_one_of
from shared.media import MediaStatus
from shared.message import Priority


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
        is_one_of("channel", Channel),
        is_one_of("direction", Direction),
        is_one_of("type", MessageType),
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
        is_one_of("status", MediaStatus),
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
