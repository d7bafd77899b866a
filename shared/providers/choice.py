"""The providers that send messages, chosen by the settings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from shared.addresses import InvalidAddressError, parse_email
from shared.channels import Channel, channel_of_address
from shared.message import Message
from shared.providers.registry import PROVIDERS
from shared.settings import Settings

T = TypeVar("T")

_NO_REGION = "ZZ"
"""Phone numbers in the settings have to be in E.164."""


def _split(value: object) -> object:
    """Split `a,b` into a list without duplicates."""
    if not isinstance(value, str):
        return value
    return list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def parse_routes(value: object) -> object:
    """Parse `+12016661234=twilio,generic_sms;@example.com=sendgrid`: senders and their providers."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(";") if part.strip()]
    routes = {parse_sender(sender): _split(names) for sender, _, names in pairs}
    if without := [sender for sender, names in routes.items() if not names]:
        raise ValueError(f"{without[0]} has no provider")
    return routes


def parse_sender(text: str) -> str:
    """Parse a phone number, an e-mail address or an `@domain`.

    Raises:
        ValueError: the text is none of these.
    """
    text = text.strip()
    try:
        if text.startswith("@"):
            return parse_email(f"someone{text}").key.removeprefix("someone")
        address = channel_of_address(text).parse_address(text, default_region=_NO_REGION)
    except InvalidAddressError as exc:
        raise ValueError(f"{text!r} is not a phone number in E.164, an e-mail address or an @domain") from exc
    return address.key.casefold()


def route_of(routes: Mapping[str, T], sender: str) -> T | None:
    """Return the route of a sender, given the key of its address: its own one, or that of its domain."""
    sender = sender.casefold()
    return routes.get(sender) or routes.get("@" + sender.rpartition("@")[2])


ProviderNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)]
"""Names of providers, in order of preference."""


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

    def can_send(self, message: Message) -> bool:
        """Return whether any provider for a message can send it, since not all can send to groups."""
        names = route_of(self.routes, message.from_key) or self.providers_of(message.channel)
        return any(PROVIDERS[name].adapter.can_send(message) for name in names)

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
