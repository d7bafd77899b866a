"""The tables of notifications, and of what follows from them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.tables.base import Base


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
