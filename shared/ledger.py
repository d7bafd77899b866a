"""The memory of what was done with each message, which makes a redelivery or a replay harmless.

One entry a message, changed by compare-and-set only. An entry tells the position in the message's course
that was claimed last, and what came of it.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.bus.bucket import Bucket
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import DELIVERIES_BUCKET
from shared.events import AttemptError, DeliveryRequest
from shared.identity import MessageId


class State(StrEnum):
    """What came of a position; of a `CLAIMED` one that is not known yet."""

    CLAIMED = "claimed"
    SENT = "sent"
    RETRYING = "retrying"
    DEFERRED = "deferred"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"

    @property
    def ends_round(self) -> bool:
        return self in {State.SENT, State.FAILED, State.EXPIRED, State.CANCELED}


Position = tuple[int, int, int]
"""Round, attempt, deferrals: each step of a message's course is greater than the one before."""


def position_of(request: DeliveryRequest) -> Position:
    return request.round, request.attempt, request.deferrals


class Entry(BaseModel):
    """What is known of a message.

    Attributes:
        at: when it came to this.
        provider: who was asked.
        error: of the attempt, if it failed.
        due: when the next step is to be taken; of `RETRYING` and `DEFERRED`.
        uncertain: an attempt had no answer, so that the provider may have the message all the same.
    """

    model_config = ConfigDict(frozen=True)

    position: Position
    state: State
    at: AwareDatetime
    provider: str | None = None
    provider_message_id: str | None = None
    error: AttemptError | None = None
    due: AwareDatetime | None = None
    uncertain: bool = False

    @property
    def next_position(self) -> Position:
        """The step that comes next, if one does."""
        round_, attempt, deferrals = self.position
        return (round_, attempt, deferrals + 1) if self.state is State.DEFERRED else (round_, attempt + 1, 0)

    def after(self, before: Self) -> Self:
        """Keep what has to be known of the entry that this one replaces."""
        taken_over = self.state is before.state is State.CLAIMED
        uncertain = self.uncertain or before.uncertain or taken_over
        return self.model_copy(update={"uncertain": uncertain})

    def becomes(self, state: State, at: datetime, **what: object) -> Self:
        return self.model_copy(update={"state": state, "at": at, **what})


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as it was read or written, with the revision that a change has to name."""

    entry: Entry
    revision: int


class Ledger:
    """The entries of all messages; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._bucket = Bucket(bus, publisher, DELIVERIES_BUCKET)

    async def look_up(self, message_id: MessageId) -> Record | None:
        value = await self._bucket.get(str(message_id))
        if value is None:
            return None
        return Record(Entry.model_validate_json(value.data), value.revision)

    async def write(self, message_id: MessageId, entry: Entry, *, after: Record | None) -> Record:
        """Write the entry if it still is as it was read: as `after`, or not there at all.

        Raises:
            ConflictError: it is not.
        """
        if after is not None:
            entry = entry.after(after.entry)
        data = entry.model_dump_json().encode()
        revision = await self._bucket.put(str(message_id), data, revision=after.revision if after else 0)
        return Record(entry, revision)
