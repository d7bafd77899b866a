from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, PositiveFloat, field_validator
from pydantic_settings import NoDecode

from services.sender.retry import DEFAULT_DELAYS
from services.sender.route import Limits
from shared.channels import Channel
from shared.settings import WebUrl, WorkerSettings


class OnAmbiguous(StrEnum):
    """What becomes of a message that a provider without idempotency keys may have taken, or not."""

    RESEND = "resend"
    FAIL = "fail"


class SenderSettings(WorkerSettings):
    """Settings of the sender.

    Attributes:
        retry_delays: seconds between one attempt and the next; one attempt more than there are delays.
        provider_timeout: seconds that a provider has to answer.
        sms_provider_concurrency, email_provider_concurrency: requests under way to a provider at once.
        sms_provider_rate, email_provider_rate: requests a second to a provider; None for no limit. It holds
            for each sender process.
        breaker_failures: failures in a row after which a provider is left alone.
        breaker_pause: seconds it is left alone for, before one message tries it again.
    """

    sms_provider_url: WebUrl = "http://localhost:8001"
    email_provider_url: WebUrl = "http://localhost:8002"
    retry_delays: Annotated[tuple[PositiveFloat, ...], NoDecode] = tuple(
        delay.total_seconds() for delay in DEFAULT_DELAYS
    )
    provider_timeout: float = Field(default=10, gt=0, le=20)
    sms_provider_concurrency: int = Field(default=48, ge=1)
    sms_provider_rate: PositiveFloat | None = None
    email_provider_concurrency: int = Field(default=48, ge=1)
    email_provider_rate: PositiveFloat | None = None
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND
    breaker_failures: int = Field(default=10, ge=1)
    breaker_pause: PositiveFloat = 30

    @field_validator("retry_delays", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    def limits(self, channel: Channel) -> Limits:
        """Tell how hard the provider of a channel may be pressed."""
        match channel:
            case Channel.SMS:
                return Limits(self.sms_provider_concurrency, self.sms_provider_rate)
            case Channel.EMAIL:
                return Limits(self.email_provider_concurrency, self.email_provider_rate)

    @property
    def delays(self) -> tuple[timedelta, ...]:
        return tuple(timedelta(seconds=seconds) for seconds in self.retry_delays)
