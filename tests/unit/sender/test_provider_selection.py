from collections.abc import Sequence
from datetime import timedelta

import httpx
import pytest
from pydantic import ValidationError

from services.sender.app import create_app
from services.sender.circuit_breaker import CircuitBreaker
from shared.providers.base import File
from shared.providers.generic.sms import GenericSms, GenericSmsSettings
from services.sender.provider_client import Limits, Route
from services.sender.provider_selection import Routes, RoutingError
from services.sender.settings import SenderSettings
from shared.channels import Channel
from shared.events import Message
from tests import messages

NATS = "nats://127.0.0.1:9"


def closed_breaker() -> CircuitBreaker:
    return CircuitBreaker(failures=1, pause=timedelta(minutes=1), clock=messages.now)


def named(name: str, breaker: CircuitBreaker | None = None) -> Route:
    """Make a route to a provider of SMS of this name, which nobody asks."""

    class Named(GenericSms):
        pass

    Named.name = name
    return Route(
        Named(httpx.AsyncClient(), GenericSmsSettings()), breaker or closed_breaker(), Limits(1), never
    )


async def never(urls: Sequence[str]) -> Sequence[File]:
    raise AssertionError(urls)


def settings(**what: str) -> SenderSettings:
    return SenderSettings.model_validate({"nats_url": NATS, **what})


def test_routes_are_read_from_one_line() -> None:
    read = settings(
        sms_providers="twilio, generic_sms,twilio",
        routes="+1 201 666 1234=generic_sms ; @Example.COM = sendgrid,generic_email;"
        "12345=twilio;Brand=twilio;Ann@Example.com=sendgrid;",
    )
    assert read.sms_providers == ("twilio", "generic_sms")
    assert read.email_providers == ("generic_email",)
    assert read.routes == {
        "+12016661234": ("generic_sms",),
        "@example.com": ("sendgrid", "generic_email"),
        "12345": ("twilio",),
        "brand": ("twilio",),
        "ann@example.com": ("sendgrid",),
    }


@pytest.mark.parametrize(
    ("routes", "complaint"),
    [
        ("+12016661234", "12016661234 has no provider"),
        ("+12016661234= , ", "12016661234 has no provider"),
        ("=twilio", "'' is no number"),
        ("2016661234=twilio", "'2016661234' is no number"),
        ("@=sendgrid", "'@' is no number"),
        ("a@b@c=sendgrid", "'a@b@c' is no number"),
    ],
)
def test_what_is_no_route(routes: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        settings(routes=routes)


@pytest.mark.parametrize("value", [",", " , "])
def test_a_channel_has_a_provider(value: str) -> None:
    with pytest.raises(ValidationError):
        settings(sms_providers=value)


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ({"sms_providers": "twillio"}, "SMS_PROVIDERS: there is no provider 'twillio', only generic_sms, "),
        ({"email_providers": "twilio"}, "EMAIL_PROVIDERS: twilio is a provider of sms, not of email"),
        ({"routes": "@a.example=x"}, "ROUTES, @a.example: there is no provider 'x'"),
        ({"routes": "12345=sendgrid"}, "ROUTES, 12345: sendgrid is a provider of email, not of sms"),
    ],
)
def test_a_sender_does_not_start_with_providers_that_there_are_not(
    what: dict[str, str], complaint: str
) -> None:
    with pytest.raises(RoutingError, match=complaint):
        create_app(settings(**what))


@pytest.mark.parametrize(
    "what", [{"sms_providers": "generic_sms,twilio"}, {"routes": "@example.com=sendgrid"}]
)
def test_a_sender_does_not_start_without_credentials(
    what: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    with pytest.raises(SystemExit) as caught:
        create_app(settings(**what))
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line in {
        f"sender: {name} is not set; .env.example shows how"
        for name in ("TWILIO_AUTH_TOKEN", "SENDGRID_API_KEY")
    }


@pytest.mark.parametrize(
    ("message", "route"),
    [
        (messages.message(), "number"),
        (messages.message(from_="+18045551234"), "sms"),
        (messages.email(), "domain"),
        (messages.email(from_="Ann@Example.COM"), "domain"),
        (messages.email(from_="boss@example.com"), "address"),
        (messages.email(from_="ann@sub.example.com"), "email"),
    ],
)
def test_the_most_particular_route_counts(message: Message, route: str) -> None:
    routes = Routes(
        {Channel.SMS: [named("sms")], Channel.EMAIL: [named("email")]},
        {
            messages.ALICE: [named("number")],
            "@example.com": [named("domain")],
            "boss@example.com": [named("address")],
        },
    )
    [found] = routes.of(message)
    assert found.provider.name == route
    assert routes.to(route) is found
    assert routes.to("other") is None


def test_messages_of_a_channel_may_go_while_one_of_its_providers_may_be_asked() -> None:
    first, second, special = (closed_breaker() for _ in range(3))
    routes = Routes(
        {Channel.SMS: [named("first", first), named("second", second)]},
        {"12345": [named("special", special)]},
    )
    for breaker in (first, second, special):
        assert routes.any_may_be_asked(Channel.SMS)
        breaker.open()
    assert not routes.any_may_be_asked(Channel.SMS)
    second.succeeded()
    assert routes.any_may_be_asked(Channel.SMS)
    assert not routes.any_may_be_asked(Channel.EMAIL)
