"""The tables of reports on outbound messages."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.tables.base import Base
from shared.status import Status


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
