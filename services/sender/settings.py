from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from shared.addresses import InvalidAddressError, parse_email
from shared.channels import Channel, channel_of_address
from shared.lifecycle import OnAmbiguous
from shared.providers.registry import PROVIDERS
from shared.settings import Settings, WorkerSettings

DEFAULT_RETRY_DELAYS = (1, 5, 15, 60, 300, 900, 1_800, 3_600, 3_600)
"""Seconds; ten attempts in somewhat less than three hours."""

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
class Limits:
    """The load that this process may put on a provider.

    Attributes:
        concurrency: requests in progress at the same time.
        rate: requests per second; None for no limit.
    """

    concurrency: int
    rate: float | None = None


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


class SenderSettings(WorkerSettings, ProviderChoice):
    """Settings of the sender. The fields whose names begin with a channel are the same for every channel.

    Attributes:
        sms_provider_concurrency, email_provider_concurrency: requests in progress at the same time to each
            provider of the channel.
        sms_provider_rate, email_provider_rate: requests per second to each provider of the channel; None for
            no limit. It applies to each sender process.
        provider_timeout: seconds that a provider has to respond.
        allow_private_attachments: whether attachments may be fetched from this machine and its network.
        retry_delays: seconds between one attempt and the next; there is one more attempt than delays.
        on_ambiguous: applies to providers that do not honour idempotency keys.
        breaker_failures: failures in a row after which no more messages are sent to a provider.
        breaker_pause: seconds after which one message probes the provider.
    """

    sms_provider_concurrency: int = Field(default=48, ge=1)
    sms_provider_rate: PositiveFloat | None = None
    email_provider_concurrency: int = Field(default=48, ge=1)
    email_provider_rate: PositiveFloat | None = None
    provider_timeout: float = Field(default=10, gt=0, le=20)
    allow_private_attachments: bool = False
    retry_delays: Annotated[tuple[PositiveFloat, ...], NoDecode, BeforeValidator(_split_numbers)] = (
        DEFAULT_RETRY_DELAYS
    )
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND
    breaker_failures: int = Field(default=10, ge=1)
    breaker_pause: PositiveFloat = 30

    @property
    def delays(self) -> tuple[timedelta, ...]:
        return tuple(timedelta(seconds=seconds) for seconds in self.retry_delays)

    def limits_of(self, channel: Channel) -> Limits:
        return Limits(
            concurrency=getattr(self, f"{channel}_provider_concurrency"),
            rate=getattr(self, f"{channel}_provider_rate"),
        )


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
