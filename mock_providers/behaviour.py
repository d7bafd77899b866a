"""How a mock API misbehaves, and which requests are affected."""

from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from random import Random
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _http_date(text: str) -> str:
    try:
        return format_datetime(parsedate_to_datetime(text).astimezone(UTC), usegmt=True)
    except (ValueError, OverflowError) as exc:
        raise ValueError("must be a number of seconds or an HTTP date") from exc


class Behaviour(BaseModel):
    """How the affected requests are handled. The defaults together are the normal behaviour.

    If more than one of `hang`, `drop_connection`, `ambiguous` and `status` is set, the first of them in
    this order applies.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    status: int | None = Field(
        default=None,
        ge=200,
        le=599,
        description="Respond with this status. A 2xx accepts the message; any other status refuses it.",
    )
    times: int | None = Field(
        default=None, ge=1, description="Affect this many requests, then return to normal."
    )
    rate: float | None = Field(
        default=None, ge=0, le=1, description="Affect this share of the requests, chosen at random."
    )
    retry_after: Annotated[int, Field(ge=0)] | Annotated[str, AfterValidator(_http_date)] | None = Field(
        default=None, description="The `Retry-After` of the response: seconds, or an HTTP date."
    )
    latency_ms: int = Field(
        default=0, ge=0, le=600_000, description="Delay the response by this many milliseconds."
    )
    html: bool = Field(default=False, description="Respond with an HTML page instead of JSON.")
    hang: bool = Field(default=False, description="Do not accept the message, and never respond.")
    drop_connection: bool = Field(
        default=False, description="Do not accept the message, and close the connection."
    )
    ambiguous: bool = Field(default=False, description="Accept the message, then close the connection.")
    outcome: str | None = Field(
        default=None, description="The last status to report for accepted messages, if the API reports any."
    )
    error_code: int | None = Field(
        default=None, description="The provider's code for the simulated error or the reported failure."
    )

    @property
    def accepts(self) -> bool:
        """Whether a valid message is accepted, even if the client is not told."""
        if self.hang or self.drop_connection:
            return False
        return self.ambiguous or self.status is None or self.status in range(200, 300)

    @property
    def breaks_connection(self) -> bool:
        """Whether the connection is closed without a response."""
        return not self.hang and (self.drop_connection or self.ambiguous)


NORMAL = Behaviour()


class BehaviourSwitch:
    """Decides which requests a behaviour affects, and counts its `times` down.

    Args:
        random: Picks the requests that `rate` affects.
        behaviour: The behaviour in effect at first.
    """

    def __init__(self, random: Random, behaviour: Behaviour = NORMAL) -> None:
        self.current = behaviour
        self._random = random

    def next(self) -> Behaviour:
        """Return the behaviour for the next request: the one in effect, or the normal one."""
        current = self.current
        if current.rate is not None and self._random.random() >= current.rate:
            return NORMAL
        if current.times is not None:
            left = current.times - 1
            self.current = current.model_copy(update={"times": left}) if left else NORMAL
        return current
