from dataclasses import replace

import pytest

from shared.providers.registry import PROVIDERS


def test_every_provider_is_listed_under_its_name_once() -> None:
    assert all(provider.name == name for name, provider in PROVIDERS.items())


def test_every_webhook_has_a_path_and_a_name_of_its_own() -> None:
    webhooks = [webhook for provider in PROVIDERS.values() for webhook in provider.webhooks]

    assert len({webhook.path for webhook in webhooks}) == len(webhooks)
    assert len({webhook.name for webhook in webhooks}) == len(webhooks)


def test_webhooks_without_a_signature_are_refused() -> None:
    with pytest.raises(ValueError, match="need a signature"):
        replace(PROVIDERS["twilio"], signature=None)
