"""Selects the providers through which a message may be sent."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from services.sender.provider_client import ProviderClient
from services.sender.settings import SenderSettings
from shared.channels import Channel
from shared.message import Message
from shared.provider_states import ProviderState
from shared.providers.base import Adapter
from shared.providers.choice import ProviderChoice, route_of
from shared.providers.registry import PROVIDERS, create_adapter
from shared.settings import collect


class ProviderSelection:
    """The clients of the chosen providers, in order of preference.

    Args:
        by_channel: for all senders.
        by_sender: for a number, an e-mail address or all addresses of an `@domain`, in lower case; they take
            the place of those of the channel.
    """

    def __init__(
        self,
        by_channel: Mapping[Channel, Sequence[ProviderClient]],
        by_sender: Mapping[str, Sequence[ProviderClient]] | None = None,
    ) -> None:
        self._by_channel = by_channel
        self._by_sender = by_sender or {}
        groups = [*self._by_channel.values(), *self._by_sender.values()]
        self._by_name = {client.name: client for group in groups for client in group}

    def clients_for(self, message: Message) -> Sequence[ProviderClient]:
        """Return the clients that may send the message: at least one, unless it is a message to a group."""
        clients = route_of(self._by_sender, message.from_key) or self._by_channel[message.channel]
        return [client for client in clients if client.can_send(message)]

    def client_of(self, provider: str) -> ProviderClient | None:
        """Return the client of a provider, or None if the settings do not choose it, or no longer do."""
        return self._by_name.get(provider)

    @cached_property
    def honouring_keys(self) -> frozenset[str]:
        """The names of the providers that honour idempotency keys."""
        return frozenset(name for name, client in self._by_name.items() if client.honours_idempotency_keys)

    def is_any_available(self, channel: Channel) -> bool:
        """Return whether any provider of the channel may be sent a message now, if only as a probe."""
        return any(client.is_available for client in self._by_name.values() if client.channel is channel)

    def is_any_healthy(self, channel: Channel) -> bool:
        """Return whether the circuit breaker of any provider of the channel is closed."""
        return any(client.is_healthy for client in self._by_name.values() if client.channel is channel)

    def states(self, now: datetime) -> list[ProviderState]:
        """Return the states of all providers, for the gateway to show."""
        return [client.state(now) for client in self._by_name.values()]

    def finish_within(self, seconds: float) -> None:
        """Limit the attempts in progress to this time."""
        for client in self._by_name.values():
            client.finish_within(seconds)


def create_adapters(choice: ProviderChoice) -> dict[str, Adapter[Any]]:
    """Create the adapters of the chosen providers, by name.

    Raises:
        SettingsError: some settings of the providers are missing or invalid.
    """
    names = choice.provider_names
    return dict(zip(names, collect(partial(create_adapter, PROVIDERS[name]) for name in names), strict=True))


def create_selection(settings: SenderSettings, clients: Mapping[str, ProviderClient]) -> ProviderSelection:
    """Arrange the clients, which are given by name, in the order of the settings."""
    return ProviderSelection(
        {channel: [clients[name] for name in settings.providers_of(channel)] for channel in Channel},
        {sender: [clients[name] for name in names] for sender, names in settings.routes.items()},
    )
