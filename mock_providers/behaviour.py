"""How a provider misbehaves, and which requests it does that to."""

from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from random import Random
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _http_date(text: str) -> str:
    try:
        return format_datetime(parsedate_to_datetime(text).astimezone(UTC), usegmt=True)
    except (ValueError, OverflowError) as exc:
        raise ValueError("neither seconds nor an HTTP date") from exc


class Behaviour(BaseModel):
    """What happens to the requests it affects.

    When several endings are asked for, the first of `hang`, `drop_connection`, `ambiguous` and
    `status` is what happens. The defaults together are the normal behaviour.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    status: int | None = Field(
        default=None, ge=200, le=599, description="Answer with this. A 2xx accepts the message, others don't."
    )
    times: int | None = Field(default=None, ge=1, description="Affect so many requests, then back to normal.")
    rate: float | None = Field(default=None, ge=0, le=1, description="Affect this share of the requests.")
    retry_after: Annotated[int, Field(ge=0)] | Annotated[str, AfterValidator(_http_date)] | None = Field(
        default=None, description="The Retry-After of the answer: seconds, or an HTTP date."
    )
    latency_ms: int = Field(default=0, ge=0, le=600_000, description="Let the answer wait so long.")
    html: bool = Field(default=False, description="Answer with a page of HTML in place of JSON.")
    hang: bool = Field(default=False, description="Don't accept the message, and never answer.")
    drop_connection: bool = Field(default=False, description="Don't accept it, and break the connection.")
    ambiguous: bool = Field(default=False, description="Accept it, then break the connection.")
    outcome: str | None = Field(
        default=None, description="What is reported last of the messages that Twilio or SendGrid accepts."
    )
    error_code: int | None = Field(
        default=None, description="Twilio's code for the error, or for the failure that is reported."
    )

    @property
    def accepts(self) -> bool:
        """Whether a usable message is accepted, whatever the client then gets to see."""
        if self.hang or self.drop_connection:
            return False
        return self.ambiguous or self.status is None or self.status in range(200, 300)

    @property
    def breaks(self) -> bool:
        """Whether the connection is broken in place of an answer."""
        return not self.hang and (self.drop_connection or self.ambiguous)


NORMAL = Behaviour()


class BehaviourSwitch:
    """Holds the behaviour in effect, and counts its `times` down.

    Args:
        random: Decides which requests a `rate` affects.
    """

    def __init__(self, random: Random) -> None:
        self.current = NORMAL
        self._random = random

    def next(self) -> Behaviour:
        """The behaviour towards the request at hand: the one in effect, or the normal one."""
        current = self.current
        if current.rate is not None and self._random.random() >= current.rate:
            return NORMAL
        if current.times is not None:
            left = current.times - 1
            self.current = current.model_copy(update={"times": left}) if left else NORMAL
        return current
