"""The providers. Each one is a folder of this package and a line in `PROVIDERS`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from shared.providers.base import Adapter, MediaCredentials, Provider
from shared.providers.generic.email import GENERIC_EMAIL
from shared.providers.generic.sms import GENERIC_SMS
from shared.providers.sendgrid import SENDGRID
from shared.providers.twilio import TWILIO
from shared.providers.webhooks import UnreadableWebhookError, Verifier, Webhook
from shared.settings import SettingsError, collect, read

PROVIDERS: Mapping[str, Provider[Any]] = {
    provider.name: provider
    for provider in (
        GENERIC_SMS,
        GENERIC_EMAIL,
        TWILIO,
        SENDGRID,
    )
}


def webhook_at(path: str) -> tuple[str, Webhook]:
    """Return the webhook at a path below `/api/webhooks/`, and the name of its provider.

    Raises:
        UnreadableWebhookError: no provider has a webhook there.
    """
    for provider in PROVIDERS.values():
        for webhook in provider.webhooks:
            if webhook.path == path:
                return provider.name, webhook
    raise UnreadableWebhookError("There is no webhook at this path any more")


def create_adapter(provider: Provider[Any], **values: Any) -> Adapter[Any]:  # noqa: ANN401 - fields of the settings
    """Create the adapter that sends through a provider.

    Args:
        provider: the provider.
        values: settings that are used instead of the environment.

    Raises:
        SettingsError: some settings of the provider are missing or invalid.
    """
    settings = read(provider.settings, required=provider.required_to_send, **values)
    try:
        return provider.adapter(settings)
    except ValueError as exc:
        raise SettingsError(str(exc)) from exc


def create_verifier(provider: Provider[Any], **values: Any) -> Verifier | None:  # noqa: ANN401
    """Create the verifier of a provider's webhooks, or return None if its settings are not set.

    Args:
        provider: the provider.
        values: settings that are used instead of the environment.

    Raises:
        SettingsError: some settings of the provider are invalid.
    """
    if provider.signature is None:
        return None
    settings = read(provider.settings, **values)
    try:
        return provider.signature.verifier(settings)
    except ValueError as exc:
        raise SettingsError(str(exc)) from exc


def opt_out_groups(**values: Any) -> dict[str, str]:  # noqa: ANN401 - fields of the settings
    """Return the opt-out groups that our messages are sent in, by the names of the providers.

    Args:
        values: settings that are used instead of the environment.

    Raises:
        SettingsError: some settings of the providers are invalid.
    """
    groups = {
        name: provider.opt_out_group(read(provider.settings, **values))
        for name, provider in PROVIDERS.items()
    }
    return {name: group for name, group in groups.items() if group}


def media_credentials(**values: Any) -> dict[str, MediaCredentials]:  # noqa: ANN401 - fields of the settings
    """Return the credentials that the media of inbound messages need, by the names of the providers.

    Args:
        values: settings that are used instead of the environment.

    Raises:
        SettingsError: some settings of the providers are invalid.
    """
    credentials = {
        name: provider.media_credentials(read(provider.settings, **values))
        for name, provider in PROVIDERS.items()
    }
    return {name: found for name, found in credentials.items() if found}


def create_verifiers() -> dict[str, Verifier | None]:
    """Create the verifiers of all providers, by name.

    Raises:
        SettingsError: some settings of the providers are invalid.
    """
    verifiers = collect(partial(create_verifier, provider) for provider in PROVIDERS.values())
    return dict(zip(PROVIDERS, verifiers, strict=True))
