"""The memory of what was done with each message, which makes a redelivery or a replay harmless.

One entry a message, changed by compare-and-set only. An entry tells the step in the message's course
that was claimed last, and what came of it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.bus.key_value import Bucket
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import DELIVERIES_BUCKET
from shared.events import AttemptError, DeliveryRequest
from shared.ids import MessageId


class State(StrEnum):
    """What came of a step; of a `CLAIMED` one that is not known yet."""

    CLAIMED = "claimed"
    SENT = "sent"
    RETRYING = "retrying"
    DEFERRED = "deferred"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"

    @property
    def ends_generation(self) -> bool:
        return self in {State.SENT, State.FAILED, State.EXPIRED, State.CANCELED}


Step = tuple[int, int, int]
"""Round, attempt, deferral_count: each step of a message's course is greater than the one before."""


def step_of(request: DeliveryRequest) -> Step:
    return request.generation, request.attempt, request.deferral_count


class Entry(BaseModel):
    """What is known of a message.

    Attributes:
        at: when it came to this.
        provider: who was asked.
        in_doubt_at: a provider that was asked before this and may have the message, for it never answered.
        error: of the attempt, if it failed.
        due: when the next step is to be taken; of `RETRYING` and `DEFERRED`.
        errors, expires_at: of the request that led to it.
    """

    model_config = ConfigDict(frozen=True)

    step: Step
    state: State
    at: AwareDatetime
    provider: str | None = None
    provider_message_id: str | None = None
    error: AttemptError | None = None
    in_doubt_at: str | None = None
    due: AwareDatetime | None = None
    errors: list[AttemptError] = []
    expires_at: AwareDatetime | None = None

    @classmethod
    def of(cls, request: DeliveryRequest, state: State, at: datetime, **what: object) -> Self:
        """Make the entry of a request that came to this."""
        known = {"errors": request.errors, "expires_at": request.expires_at}
        return cls(step=step_of(request), state=state, at=at, **known, **what)

    @property
    def next_step(self) -> Step:
        """The step that comes next, if one does."""
        generation, attempt, deferral_count = self.step
        return (generation, attempt, deferral_count + 1) if self.state is State.DEFERRED else (generation, attempt + 1, 0)

    @property
    def may_be_at(self) -> str | None:
        """The provider that may have the message: one that was asked, and nobody knows what it did."""
        return self.provider if self.state is State.CLAIMED else self.in_doubt_at

    def catch_up(self, request: DeliveryRequest) -> DeliveryRequest:
        """Make of a request that is behind this entry the one that the entry is of, unless its generation is over.

        DELAYED has one step of each message. A step that is told late, by a process that was held up, takes
        the place of the one that the message has come to, and so has to stand for it.
        """
        if step_of(request) >= self.step or self.state.ends_generation or self.expires_at is None:
            return request
        generation, attempt, deferral_count = self.step
        step = {"generation": generation, "attempt": attempt, "deferral_count": deferral_count}
        return request.model_copy(update={**step, "errors": self.errors, "expires_at": self.expires_at})

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
        self._bus = bus
        self._bucket = Bucket(bus, publisher, DELIVERIES_BUCKET)

    @property
    def connected_for(self) -> timedelta:
        """How long it could be read and written without a break."""
        return self._bus.connected_for

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
        data = entry.model_dump_json().encode()
        revision = await self._bucket.put(str(message_id), data, revision=after.revision if after else 0)
        return Record(entry, revision)
