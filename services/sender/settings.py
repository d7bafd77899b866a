import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from shared.addresses import InvalidAddressError, parse_email
from shared.channels import Channel, channel_of_address
from shared.lifecycle.policy import OnAmbiguous
from shared.providers.registry import PROVIDERS
from shared.settings import MediaSettings, Settings, WorkerSettings

DEFAULT_RETRY_DELAYS = (1, 5, 15, 60, 300, 900, 1_800, 3_600, 3_600)
"""Seconds; ten attempts in somewhat less than three hours."""

_RATE = re.compile(r"(?P<amount>[0-9]{1,9}(\.[0-9]{1,3})?)/(?P<unit>s|min|day)")
_SECONDS = {"s": 1, "min": 60}

_NO_REGION = "ZZ"
"""Phone numbers in the settings have to be in E.164."""


def _split(value: object) -> object:
    """Split `a,b` into a list without duplicates."""
    if not isinstance(value, str):
        return value
    return list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def _split_numbers(value: object) -> object:
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def parse_routes(value: object) -> object:
    """Parse `+12016661234=twilio,generic_sms;@example.com=sendgrid`: senders and their providers."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(";") if part.strip()]
    routes = {_parse_sender(sender): _split(names) for sender, _, names in pairs}
    if without := [sender for sender, names in routes.items() if not names]:
        raise ValueError(f"{without[0]} has no provider")
    return routes


def _parse_sender(text: str) -> str:
    text = text.strip()
    try:
        if text.startswith("@"):
            return parse_email(f"someone{text}").key.removeprefix("someone")
        address = channel_of_address(text).parse_address(text, default_region=_NO_REGION)
    except InvalidAddressError as exc:
        raise ValueError(f"{text!r} is not a phone number in E.164, an e-mail address or an @domain") from exc
    return address.key.casefold()


ProviderNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)]
"""Names of providers, in order of preference."""


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
    senders = tuple(_parse_sender(sender) for sender in (members if colon else target).split(","))
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


class ProviderChoice(Settings):
    """The choice of providers, which can be read even if other settings of the sender are invalid.

    Attributes:
        sms_providers, email_providers: each message is sent through the first healthy provider.
        routes: the same for messages from certain numbers, e-mail addresses or `@domain`s.
    """

    sms_providers: ProviderNames = (Channel.SMS.rules.default_provider,)
    email_providers: ProviderNames = (Channel.EMAIL.rules.default_provider,)
    routes: Annotated[dict[str, ProviderNames], NoDecode, BeforeValidator(parse_routes)] = Field(
        default_factory=dict
    )

    @property
    def provider_names(self) -> Sequence[str]:
        """The names of all providers that the settings choose, once each."""
        of_channels = map(self.providers_of, Channel)
        return list(dict.fromkeys(chain.from_iterable([*of_channels, *self.routes.values()])))

    def providers_of(self, channel: Channel) -> Sequence[str]:
        names: tuple[str, ...] = getattr(self, f"{channel}_providers")
        return names

    @field_validator(*(f"{channel}_providers" for channel in Channel))
    @classmethod
    def _require_known_providers(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        channel = Channel(str(info.field_name).removesuffix("_providers"))
        _require_none(_unknown_providers(names, channel))
        return names

    @field_validator("routes")
    @classmethod
    def _require_known_providers_of_senders(
        cls, routes: dict[str, tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        _require_none(
            f"{sender}: {fault}"
            for sender, names in routes.items()
            for fault in _unknown_providers(names, channel_of_address(sender))
        )
        return routes


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


def _unknown_providers(names: Sequence[str], channel: Channel) -> Iterator[str]:
    """Return a sentence for each name that is not that of a provider of the channel."""
    known = [name for name, provider in PROVIDERS.items() if provider.channel is channel]
    for name in names:
        if name not in known:
            yield f"{name!r} is not a provider of {channel}; use {', '.join(known)}"


def _require_none(faults: Iterable[str]) -> None:
    """Raise ValueError with a line for each fault, if there are any."""
    if lines := "\n".join(faults):
        raise ValueError(lines)
