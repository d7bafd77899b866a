"""Which providers a message may go through."""

from collections.abc import Iterable, Mapping, Sequence

from shared.providers.base import Provider
from shared.providers.registry import PROVIDERS
from services.sender.provider_client import Route
from services.sender.settings import SenderSettings
from shared.channels import Channel
from shared.errors import ServiceError
from shared.events import Message


class RoutingError(ServiceError):
    """The settings name providers that there are not, or that do not carry what they are to send."""


class Routes:
    """The routes of each channel, and those of certain senders, the best first.

    Args:
        by_channel: for everybody.
        by_sender: for a number, an e-mail address, or all addresses of an `@domain`, in lower case.
    """

    def __init__(
        self,
        by_channel: Mapping[Channel, Sequence[Route]],
        by_sender: Mapping[str, Sequence[Route]] | None = None,
    ) -> None:
        self._by_channel = by_channel
        self._by_sender = by_sender or {}
        routes = [
            route for of in (self._by_channel, self._by_sender) for some in of.values() for route in some
        ]
        self._by_provider = {route.provider.name: route for route in routes}

    def of(self, message: Message) -> Sequence[Route]:
        """Return the routes that the message may take, one at least."""
        sender = message.from_.casefold()
        domain = "@" + sender.rpartition("@")[2]
        routes = self._by_sender.get(sender) or self._by_sender.get(domain)
        return routes or self._by_channel[message.channel]

    def to(self, provider: str) -> Route | None:
        """Return the route to a provider, or None where no setting names it (any more)."""
        return self._by_provider.get(provider)

    def any_may_be_asked(self, channel: Channel) -> bool:
        """Tell whether a provider of the channel may be asked, be it for one message that finds out."""
        routes = self._by_provider.values()
        return any(route.may_be_asked for route in routes if route.provider.channel is channel)

    def finish_within(self, seconds: float) -> None:
        for route in self._by_provider.values():
            route.finish_within(seconds)


def chosen_providers(settings: SenderSettings) -> dict[str, type[Provider]]:
    """Return the providers that the settings name.

    Raises:
        RoutingError: there is no such provider, or it is one of another channel.
    """
    chosen: dict[str, type[Provider]] = {}
    for variable, channel, names in _choices(settings):
        for name in names:
            provider = PROVIDERS.get(name)
            if provider is None:
                raise RoutingError(f"{variable}: there is no provider {name!r}, only {', '.join(PROVIDERS)}")
            if provider.channel is not channel:
                raise RoutingError(
                    f"{variable}: {name} is a provider of {provider.channel}, not of {channel}"
                )
            chosen[name] = provider
    return chosen


def _choices(settings: SenderSettings) -> Iterable[tuple[str, Channel, Sequence[str]]]:
    yield "SMS_PROVIDERS", Channel.SMS, settings.sms_providers
    yield "EMAIL_PROVIDERS", Channel.EMAIL, settings.email_providers
    for sender, names in settings.routes.items():
        yield f"ROUTES, {sender}", Channel.EMAIL if "@" in sender else Channel.SMS, names


def make_routes(settings: SenderSettings, routes: Mapping[str, Route]) -> Routes:
    """Order the routes, which are by provider, as the settings say."""
    return Routes(
        {
            Channel.SMS: [routes[name] for name in settings.sms_providers],
            Channel.EMAIL: [routes[name] for name in settings.email_providers],
        },
        {sender: [routes[name] for name in names] for sender, names in settings.routes.items()},
    )
