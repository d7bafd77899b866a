"""The ledger: a record of what was done with each message, which makes redeliveries and replays harmless.

There is one entry for each message, changed by compare-and-set only. It contains the step that was claimed
most recently, and its outcome.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field

from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore, Versioned
from shared.bus.publisher import Publisher
from shared.bus.topology import DELIVERIES_BUCKET, LEDGER_GRACE
from shared.ids import MessageId
from shared.lifecycle import Step
from shared.message import AttemptError, DeliveryRequest, FrozenModel


class DeliveryState(StrEnum):
    """The outcome of a step; that of a `CLAIMED` one is not known yet."""

    CLAIMED = "claimed"
    SENT = "sent"
    RETRYING = "retrying"
    DEFERRED = "deferred"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"

    @property
    def ends_generation(self) -> bool:
        return self in _ENDS


_ENDS = {DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.EXPIRED, DeliveryState.CANCELED}


class LedgerEntry(FrozenModel):
    """The state of the delivery of a message.

    Attributes:
        at: when the step had this outcome.
        provider: the provider that was asked.
        in_doubt_at: the provider that was asked earlier, did not answer, and may have the message.
        error: of the attempt, if it failed.
        due: when the next step is to be taken; for `RETRYING` and `DEFERRED`.
        errors, expires_at: of the request that led to the step.
    """

    step: Step
    state: DeliveryState
    at: AwareDatetime
    provider: str | None = None
    provider_message_id: str | None = None
    error: AttemptError | None = None
    in_doubt_at: str | None = None
    due: AwareDatetime | None = None
    errors: list[AttemptError] = Field(default_factory=list)
    expires_at: AwareDatetime | None = None

    @classmethod
    def of(cls, request: DeliveryRequest, state: DeliveryState, at: AwareDatetime, **fields: object) -> Self:
        """Create the entry of a request."""
        known = {"errors": request.errors, "expires_at": request.expires_at}
        return cls(step=request.step, state=state, at=at, **known, **fields)

    @property
    def next_step(self) -> Step:
        """The step that follows, if there is one."""
        return self.step.deferred if self.state is DeliveryState.DEFERRED else self.step.next_attempt

    @property
    def may_be_at(self) -> str | None:
        """The provider that may have the message: it was asked, and its response is not known."""
        return self.provider if self.state is DeliveryState.CLAIMED else self.in_doubt_at

    def catch_up(self, request: DeliveryRequest) -> DeliveryRequest:
        """Return the request of this entry in place of an older one, unless its generation has ended.

        DELAYED keeps one step of each message. A step that is scheduled late, by a process that was held up,
        replaces the step that the message has reached by then, and therefore has to stand in for it.
        """
        if request.step >= self.step or self.state.ends_generation or self.expires_at is None:
            return request
        return request.model_copy(
            update={**self.step._asdict(), "errors": self.errors, "expires_at": self.expires_at}
        )

    def becomes(self, state: DeliveryState, at: AwareDatetime, **fields: object) -> Self:
        return self.model_copy(update={"state": state, "at": at, **fields})


class Ledger:
    """The entries of all messages; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._bus = bus
        self._entries = KeyValueStore.bucket(bus, publisher, DELIVERIES_BUCKET, LedgerEntry)

    @property
    def connected_for(self) -> timedelta:
        """How long the ledger has been available without interruption."""
        return self._bus.connected_for

    async def look_up(self, message_id: MessageId) -> Versioned[LedgerEntry] | None:
        return await self._entries.get(str(message_id))

    async def write(
        self, message_id: MessageId, entry: LedgerEntry, *, after: Versioned[LedgerEntry] | None
    ) -> Versioned[LedgerEntry]:
        """Write an entry if the current one is still `after`, or if there is none and `after` is None.

        Raises:
            RevisionConflictError: the entry has changed.
        """
        return await self._entries.put(str(message_id), entry, after=after, ttl=_time_to_live(entry))


def _time_to_live(entry: LedgerEntry) -> timedelta | None:
    """Return how long an entry has to be kept, or None if that does not follow from it."""
    if entry.expires_at is None:
        return None
    return max(entry.expires_at - entry.at, timedelta(0)) + LEDGER_GRACE
