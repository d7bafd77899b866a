from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from services.sender.app import create_app
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.limits import Limiter
from services.sender.provider_client import ProviderClient
from services.sender.provider_selection import ProviderSelection
from services.sender.settings import SenderSettings
from shared.channels import Channel
from shared.message import Message
from shared.providers.base import File
from shared.providers.generic.sms import GENERIC_SMS
from shared.providers.http import HttpClient
from shared.providers.registry import create_adapter
from shared.settings import SettingsError, read
from tests import messages
from tests.pauses import LocalPauses


class Unused(HttpClient):
    def __init__(self) -> None:
        pass


def closed_breaker() -> CircuitBreaker:
    return CircuitBreaker(failures=1, pause=timedelta(minutes=1))


def client_of(name: str, breaker: CircuitBreaker | None = None) -> ProviderClient:
    """Return the client of an SMS provider with this name, which sends nothing."""
    return ProviderClient(
        replace(GENERIC_SMS, name=name),
        create_adapter(GENERIC_SMS),
        Unused(),
        breaker=breaker or closed_breaker(),
        limiter=Limiter(1),
        pauses=LocalPauses(),
        fetch=never,
    )


async def never(urls: Sequence[str], max_bytes: int = 0) -> Sequence[File]:
    raise AssertionError(urls, max_bytes)


@pytest.mark.parametrize(
    "chosen", [{"sms_providers": "generic_sms,twilio"}, {"routes": "@example.com=sendgrid"}]
)
def test_a_sender_does_not_start_without_credentials(
    chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    settings = read(SenderSettings, nats_url="nats://127.0.0.1:9", **chosen)

    with pytest.raises(SettingsError) as caught:
        create_app(settings)
    [fault] = caught.value.faults
    assert fault in {
        f"{name} is not set; see .env.example" for name in ("TWILIO_AUTH_TOKEN", "SENDGRID_API_KEY")
    }


@pytest.mark.parametrize(
    ("message", "provider"),
    [
        (messages.message(), "number"),
        (messages.message(from_="+18045551234"), "sms"),
        (messages.email(), "domain"),
        (messages.email(from_="Ann@Example.COM"), "domain"),
        (messages.email(from_="boss@example.com"), "address"),
        (messages.email(from_="ann@sub.example.com"), "email"),
    ],
)
def test_the_most_specific_route_applies(message: Message, provider: str) -> None:
    selection = ProviderSelection(
        {Channel.SMS: [client_of("sms")], Channel.EMAIL: [client_of("email")]},
        {
            messages.ALICE: [client_of("number")],
            "@example.com": [client_of("domain")],
            "boss@example.com": [client_of("address")],
        },
    )
    [found] = selection.clients_for(message)
    assert found.name == provider
    assert selection.client_of(provider) is found
    assert selection.client_of("other") is None


def test_a_channel_is_available_while_one_of_its_providers_is() -> None:
    now = [0.0]
    first, special = closed_breaker(), closed_breaker()
    second = CircuitBreaker(failures=1, pause=timedelta(minutes=1), clock=lambda: now[0])
    selection = ProviderSelection(
        {Channel.SMS: [client_of("first", first), client_of("second", second)]},
        {"12345": [client_of("special", special)]},
    )
    for breaker in (first, second, special):
        assert selection.is_any_available(Channel.SMS)
        breaker.open()
    assert not selection.is_any_available(Channel.SMS)
    now[0] = 60
    assert selection.is_any_available(Channel.SMS)
    assert not selection.is_any_available(Channel.EMAIL)
