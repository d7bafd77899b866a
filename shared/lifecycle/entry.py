"""The entry of a message in the ledger: the step that was claimed most recently, and its outcome."""

from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field

from shared.message import AttemptError, DeliveryRequest, FrozenModel
from shared.status import Step


class DeliveryState(StrEnum):
    """The outcome of a step.

    Attributes:
        CLAIMED: the outcome is not known yet.
        RELEASED: the provider asked us to wait; the message keeps its place, and its step is taken again.
        DEFERRED: the attempt was not used up and is due later.
    """

    CLAIMED = "claimed"
    RELEASED = "released"
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
_POSTPONED = {DeliveryState.RELEASED, DeliveryState.DEFERRED}


class LedgerEntry(FrozenModel):
    """The state of the delivery of a message.

    Attributes:
        at: when the step had this outcome.
        claimed_by: identifies the claim; without it, two claims made at the same moment would look the same.
        provider: the provider of this step.
        in_doubt_at: the provider of an earlier attempt without a response, which may have the message.
        error: the error of the attempt, if it failed.
        due: when the next step is to be taken; for `RETRYING` and `DEFERRED`. For `RELEASED`, the time until
            which the provider asked us to wait.
        errors, expires_at: those of the request that led to the step.
    """

    step: Step
    state: DeliveryState
    at: AwareDatetime
    claimed_by: str | None = None
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

    def becomes(self, state: DeliveryState, at: AwareDatetime, **fields: object) -> Self:
        return self.model_copy(update={"state": state, "at": at, **fields})

    @property
    def next_step(self) -> Step:
        """The step that follows, if there is one."""
        match self.state:
            case DeliveryState.RELEASED:
                return self.step
            case DeliveryState.DEFERRED:
                return self.step.deferred
        return self.step.next_attempt

    @property
    def may_be_at(self) -> str | None:
        """The provider that may have the message because its response to a request is not known."""
        return self.provider if self.state is DeliveryState.CLAIMED else self.in_doubt_at

    @property
    def is_postponed(self) -> bool:
        """Whether the step has ended without using up its attempt, and another provider may take it."""
        return self.state in _POSTPONED

    def correct(self, recorded: Self) -> Self | None:
        """Return the entry that replaces one that was recorded meanwhile, or None if the recorded one stands.

        After the claim of a slow process has expired, another process continues, in doubt about whether the
        provider has the message. An acceptance removes the doubt, whatever was recorded because of it.
        """
        is_correction = self.state is DeliveryState.SENT and recorded.state is not DeliveryState.SENT
        if not (is_correction and recorded.may_be_at):
            return None
        return self.model_copy(
            update={"step": max(self.step, recorded.step), "expires_at": recorded.expires_at}
        )
