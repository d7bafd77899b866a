"""The tables of dead letters."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.channels import Channel, Direction
from shared.db.tables.base import Base, is_one_of
from shared.dead_letters import Resolution


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
        is_one_of("direction", Direction),
        is_one_of("channel", Channel),
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
        is_one_of("resolution", Resolution),
        CheckConstraint(
            f"resolution <> '{Resolution.DISCARDED}' OR reason IS NOT NULL", name="discard_has_reason"
        ),
    )

    dead_letter_id: Mapped[UUID] = mapped_column(primary_key=True)
    resolution: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str | None]
    resolved_by: Mapped[str]
    resolved_at: Mapped[datetime]
