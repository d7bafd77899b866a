"""The tables of conversations."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel
from shared.db.tables.base import Base, is_one_of


class Participant(Base):
    """An address that takes part in conversations of a channel.

    Attributes:
        address: the key of the address.
    """

    __tablename__ = "participants"
    __table_args__ = (
        UniqueConstraint("address", "channel"),
        CheckConstraint(f"length(address) BETWEEN 1 AND {MAX_ADDRESS_LENGTH}", name="address_length"),
        is_one_of("channel", Channel),
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
        is_one_of("channel", Channel),
        CheckConstraint("message_count >= 0", name="message_count"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    key: Mapped[UUID] = mapped_column(unique=True)
    channel: Mapped[str]
    message_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    last_message_at: Mapped[datetime | None]


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
