from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator
from pydantic_settings import NoDecode

from services.sender.retry import DEFAULT_DELAYS
from services.sender.provider_client import Limits
from shared.addresses import InvalidAddressError, parse_email, parse_phone
from shared.channels import Channel
from shared.settings import WorkerSettings


def _split(value: object) -> object:
    """Take `a,b` for a list, and each of it once."""
    if not isinstance(value, str):
        return value
    return list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def parse_routes(value: object) -> object:
    """Read `+12016661234=twilio,generic_sms;@example.com=sendgrid`: senders, and their providers."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(";") if part.strip()]
    routes = {_sender(sender): _split(names) for sender, _, names in pairs}
    if nobody := [sender for sender, names in routes.items() if not names]:
        raise ValueError(f"{nobody[0]} has no provider")
    return routes


def _sender(text: str) -> str:
    text = text.strip()
    try:
        if text.startswith("@"):
            return parse_email(f"someone{text}").key.removeprefix("someone")
        return (parse_email(text) if "@" in text else parse_phone(text, "ZZ")).key.casefold()
    except InvalidAddressError as exc:
        raise ValueError(f"{text!r} is no number (in E.164), e-mail address or @domain") from exc


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)]
"""Of providers, the best first."""


class OnAmbiguous(StrEnum):
    """What becomes of a message that a provider without idempotency keys may have taken, or not."""

    RESEND = "resend"
    FAIL = "fail"


class SenderSettings(WorkerSettings):
    """Settings of the sender.

    Attributes:
        retry_delays: seconds between one attempt and the next; one attempt more than there are delays.
        provider_timeout: seconds that a provider has to answer.
        sms_providers, email_providers: a message goes through the first that is well.
        routes: the same for what certain numbers, e-mail addresses or `@domain`s send.
        sms_provider_concurrency, email_provider_concurrency: requests under way at once to each provider of
            the channel.
        sms_provider_rate, email_provider_rate: requests a second to each provider of the channel; None for no
            limit. It holds for each sender process.
        allow_private_attachments: fetch attachments from this machine and its network as well.
        breaker_failures: failures in a row after which a provider is left alone.
        breaker_pause: seconds it is left alone for, before one message tries it again.
    """

    sms_providers: Names = ("generic_sms",)
    email_providers: Names = ("generic_email",)
    routes: Annotated[dict[str, Names], NoDecode, BeforeValidator(parse_routes)] = Field(default_factory=dict)
    allow_private_attachments: bool = False
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
