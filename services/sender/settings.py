import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat
from pydantic_settings import NoDecode

from shared.channels import Channel
from shared.lifecycle.policy import OnAmbiguous
from shared.providers.choice import ProviderChoice, parse_sender
from shared.settings import MediaSettings, WorkerSettings

DEFAULT_RETRY_DELAYS = (1, 5, 15, 60, 300, 900, 1_800, 3_600, 3_600)
"""Seconds; ten attempts in somewhat less than three hours."""

_RATE = re.compile(r"(?P<amount>[0-9]{1,9}(\.[0-9]{1,3})?)/(?P<unit>s|min|day)")
_SECONDS = {"s": 1, "min": 60}


def _split_numbers(value: object) -> object:
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class SenderLimit:
    """A limit on some sending addresses together, across all processes.

    Attributes:
        senders: numbers, e-mail addresses or `@domain`s, in lower case.
        rate: segments, or e-mails, per second; None for no limit.
        per_day: the same per day (UTC).
    """

    senders: tuple[str, ...]
    rate: float | None = None
    per_day: int | None = None


def parse_limits(value: object) -> object:
    """Parse `+12016661234=1/s,2000/day;pool:+12025550100,+12025550101=240/min`: limits by their names."""
    if not isinstance(value, str):
        return value
    limits: dict[str, SenderLimit] = {}
    for part in filter(None, map(str.strip, value.split(";"))):
        name, limit = _parse_limit(part)
        if name in limits:
            raise ValueError(f"{name} has more than one limit")
        limits[name] = limit
    return limits


def _parse_limit(text: str) -> tuple[str, SenderLimit]:
    target, _, rates = text.partition("=")
    pool, colon, members = target.partition(":")
    senders = tuple(parse_sender(sender) for sender in (members if colon else target).split(","))
    name = pool.strip() if colon else target.strip()
    if not name:
        raise ValueError(f"{text!r} has no name before the colon")
    if not colon and len(senders) > 1:
        raise ValueError(f"{target!r} needs a name, as in pool:{target}")
    rate, per_day = None, None
    for each in filter(None, map(str.strip, rates.split(","))):
        amount, unit = _parse_rate(each)
        if unit == "day":
            per_day = int(amount)
        else:
            rate = amount / _SECONDS[unit]
    if rate is None and per_day is None:
        raise ValueError(f"{name} has no limit, such as 1/s or 2000/day")
    return (name if colon else senders[0]), SenderLimit(senders, rate, per_day)


def _parse_rate(text: str) -> tuple[float, str]:
    found = _RATE.fullmatch(text)
    amount = float(found["amount"]) if found else 0
    if found is None or not amount or (found["unit"] == "day" and amount % 1):
        raise ValueError(f"{text!r} is not a limit, such as 1/s, 240/min or 2000/day")
    return amount, found["unit"]


class SenderSettings(WorkerSettings, ProviderChoice, MediaSettings):
    """Settings of the sender. The fields whose names begin with a channel are the same for every channel.

    Attributes:
        sms_provider_concurrency, email_provider_concurrency: requests in progress at the same time to each
            provider of the channel, in each process.
        sms_provider_rate, email_provider_rate: requests per second to each provider of the channel, across
            all processes; None for no limit.
        sender_limits: further limits across all processes, by name: the sending address, or the name of a
            pool of addresses.
        provider_timeout: seconds that a provider has to respond.
        allow_private_attachments: whether attachments may be fetched from this machine and its network.
        media_max_file_bytes: the maximum size of a file of an inbound message that is fetched.
        media_max_message_bytes: the maximum size of all of them together.
        retry_delays: seconds between one attempt and the next; there is one more attempt than delays.
        on_ambiguous: applies to providers that do not honour idempotency keys.
        breaker_failures: failures in a row after which no more messages are sent to a provider.
        breaker_pause: seconds after which one message probes the provider.
    """

    sms_provider_concurrency: int = Field(default=96, ge=1)
    sms_provider_rate: PositiveFloat | None = None
    email_provider_concurrency: int = Field(default=96, ge=1)
    email_provider_rate: PositiveFloat | None = None
    sender_limits: Annotated[dict[str, SenderLimit], NoDecode, BeforeValidator(parse_limits)] = Field(
        default_factory=dict
    )
    provider_timeout: float = Field(default=10, gt=0, le=20)
    allow_private_attachments: bool = False
    media_max_file_bytes: int = Field(default=25 * 1024 * 1024, ge=1)
    media_max_message_bytes: int = Field(default=50 * 1024 * 1024, ge=1)
    retry_delays: Annotated[tuple[PositiveFloat, ...], NoDecode, BeforeValidator(_split_numbers)] = (
        DEFAULT_RETRY_DELAYS
    )
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND
    breaker_failures: int = Field(default=10, ge=1)
    breaker_pause: PositiveFloat = 30

    @property
    def delays(self) -> tuple[timedelta, ...]:
        return tuple(timedelta(seconds=seconds) for seconds in self.retry_delays)

    def concurrency_of(self, channel: Channel) -> int:
        concurrency: int = getattr(self, f"{channel}_provider_concurrency")
        return concurrency

    def rate_of(self, channel: Channel) -> float | None:
        rate: float | None = getattr(self, f"{channel}_provider_rate")
        return rate
