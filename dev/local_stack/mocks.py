"""Decides which mock providers run, and which variables they get.

A mock signs whatever it is asked to sign. It therefore never runs beside a real provider of its channel, and
never gets a secret that a real provider uses.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from urllib.parse import urlsplit

from pydantic_settings import BaseSettings

from dev.local_stack.configuration import Configuration
from dev.local_stack.errors import StackError
from dev.local_stack.settings import LocalStackSettings, load
from mock_providers.registry import CHANNELS
from mock_providers.settings import Settings as MockProviderSettings
from shared.channels import Channel, channel_of_address
from shared.providers.choice import ProviderChoice
from shared.settings import SettingsError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_OF_ANY_PROGRAM = {"PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR"}
_SHARED_SECRET = "WEBHOOK_SECRET"  # noqa: S105 - the name of a variable


def mocked_channels(settings: LocalStackSettings, environment: Mapping[str, str]) -> tuple[Channel, ...]:
    """Return the channels whose messages are sent to mocks only."""
    try:
        choice = load(ProviderChoice, environment)
    except SettingsError as exc:
        raise StackError("\n".join(exc.faults)) from exc
    return tuple(
        channel
        for channel in Channel
        if all(_is_mocked(name, channel, settings, environment) for name in _chosen(choice, channel))
    )


def missing_urls(settings: LocalStackSettings, environment: Mapping[str, str]) -> list[str]:
    """Return a line for each generic provider that is chosen, has no URL, and gets no mock."""
    choice = load(ProviderChoice, environment)
    mocked = mocked_channels(settings, environment)
    return [
        f"{_generic_url(channel)}: must be set, because no mock runs beside another provider of its channel"
        for channel in Channel
        if channel not in mocked
        and channel.rules.default_provider in _chosen(choice, channel)
        and _generic_url(channel) not in environment
    ]


def environment_of_mocks(configuration: Configuration, channels: Sequence[Channel]) -> dict[str, str]:
    """Return the variables for the mocks of these channels."""
    settings, environment = configuration.settings, configuration.environment
    of_apis = [
        api.settings_class
        for channel in channels
        for api in CHANNELS[channel].apis
        if _is_mocked(api.name, channel, settings, environment)
    ]
    kinds: list[type[BaseSettings]] = [MockProviderSettings, *of_apis]
    names = {field.upper() for kind in kinds for field in kind.model_fields} | _OF_ANY_PROGRAM
    if len(channels) < len(Channel):
        names.discard(_SHARED_SECRET)  # a real provider may use it
    return {name: value for name, value in environment.items() if name.upper() in names}


def _chosen(choice: ProviderChoice, channel: Channel) -> Sequence[str]:
    of_routes = (names for sender, names in choice.routes.items() if channel_of_address(sender) is channel)
    return list(chain(choice.providers_of(channel), *of_routes))


def _is_mocked(
    name: str, channel: Channel, settings: LocalStackSettings, environment: Mapping[str, str]
) -> bool:
    if name == channel.rules.default_provider:
        return _generic_url(channel) not in environment
    url = urlsplit(environment.get(f"{name}_url".upper(), ""))
    variable = f"{channel}_provider_port"
    # If the port is set, another process may be in front of the mock, such as one that records requests.
    return url.hostname in _LOOPBACK and (
        url.port == getattr(settings, variable) or variable.upper() in environment
    )


def _generic_url(channel: Channel) -> str:
    return f"{channel}_provider_url".upper()
