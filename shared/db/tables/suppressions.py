"""The tables of the suppression list."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.channels import Channel
from shared.db.tables.base import Base, is_one_of
from shared.suppressions import SuppressionState


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
        is_one_of("channel", Channel),
        is_one_of("state", SuppressionState),
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
