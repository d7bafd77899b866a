import pytest

from services.sender.settings import SenderLimit, SenderSettings
from shared.channels import Channel
from shared.settings import SettingsError, read


def settings(**values: str) -> SenderSettings:
    return read(SenderSettings, nats_url="nats://127.0.0.1:9", **values)


@pytest.mark.parametrize("channel", Channel)
def test_every_channel_has_its_settings(channel: Channel) -> None:
    read_settings = settings(**{f"{channel}_provider_concurrency": "7", f"{channel}_provider_rate": "2.5"})

    assert read_settings.providers_of(channel) == (channel.rules.default_provider,)
    assert (read_settings.concurrency_of(channel), read_settings.rate_of(channel)) == (7, 2.5)


@pytest.mark.parametrize("channel", Channel)
def test_the_rate_is_not_limited_by_default(channel: Channel) -> None:
    assert settings().rate_of(channel) is None
    assert settings().sender_limits == {}


def test_limits_are_lists_on_one_line() -> None:
    read_settings = settings(
        sender_limits="+1 201 666 1234=1/s, 2000/day;"
        "campaign-a : +12025550100,+12025550101 = 240/min; @Example.COM=0.5/s;shop@example.com=100/day;"
    )

    assert read_settings.sender_limits == {
        "+12016661234": SenderLimit(("+12016661234",), rate=1, per_day=2_000),
        "campaign-a": SenderLimit(("+12025550100", "+12025550101"), rate=4),
        "@example.com": SenderLimit(("@example.com",), rate=0.5),
        "shop@example.com": SenderLimit(("shop@example.com",), per_day=100),
    }


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ("+12016661234", "12016661234 has no limit, such as 1/s or 2000/day"),
        ("+12016661234=", "12016661234 has no limit, such as 1/s or 2000/day"),
        ("+12016661234=1", "'1' is not a limit, such as 1/s, 240/min or 2000/day"),
        ("+12016661234=1/h", "'1/h' is not a limit"),
        ("+12016661234=0/s", "'0/s' is not a limit"),
        ("+12016661234=0.5/day", "'0.5/day' is not a limit"),
        ("2016661234=1/s", "'2016661234' is not a phone number in E.164"),
        ("a:=1/s", "'' is not a phone number in E.164"),
        (":+12016661234=1/s", "':.*' has no name before the colon"),
        ("+12016661234,+12016661235=1/s", "'.*' needs a name, as in pool:"),
        ("a:+12016661234=1/s;a:+12016661235=2/s", "a has more than one limit"),
        ("+12016661234=1/s;+1 201 6661234=9/day", "12016661234 has more than one limit"),
    ],
)
def test_invalid_limits_are_rejected(limits: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=f"^SENDER_LIMITS: .?{fault}"):
        settings(sender_limits=limits)


def test_providers_and_routes_are_lists_on_one_line() -> None:
    read_settings = settings(
        sms_providers="twilio, generic_sms,twilio",
        routes="+1 201 666 1234=generic_sms ; @Example.COM = sendgrid,generic_email;"
        "12345=twilio;Brand=twilio;Ann@Example.com=sendgrid;",
    )

    assert read_settings.sms_providers == ("twilio", "generic_sms")
    assert read_settings.email_providers == ("generic_email",)
    assert read_settings.routes == {
        "+12016661234": ("generic_sms",),
        "@example.com": ("sendgrid", "generic_email"),
        "12345": ("twilio",),
        "brand": ("twilio",),
        "ann@example.com": ("sendgrid",),
    }
    assert read_settings.provider_names == ["twilio", "generic_sms", "generic_email", "sendgrid"]


@pytest.mark.parametrize(
    ("routes", "fault"),
    [
        ("+12016661234", "12016661234 has no provider"),
        ("+12016661234= , ", "12016661234 has no provider"),
        ("=twilio", "'' is not a phone number"),
        ("2016661234=twilio", "'2016661234' is not a phone number"),
        ("@=sendgrid", "'@' is not a phone number"),
        ("a@b@c=sendgrid", "'a@b@c' is not a phone number"),
    ],
)
def test_invalid_routes_are_rejected(routes: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=f"^ROUTES: .*{fault}"):
        settings(routes=routes)


@pytest.mark.parametrize("value", [",", " , "])
def test_a_channel_needs_a_provider(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^SMS_PROVIDERS: "):
        settings(sms_providers=value)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"sms_providers": "twillio"},
            "SMS_PROVIDERS: 'twillio' is not a provider of sms; use generic_sms, twilio",
        ),
        (
            {"email_providers": "twilio"},
            "EMAIL_PROVIDERS: 'twilio' is not a provider of email; use generic_email, sendgrid",
        ),
        ({"routes": "@a.example=x"}, "ROUTES: @a.example: 'x' is not a provider of email"),
        ({"routes": "12345=sendgrid"}, "ROUTES: 12345: 'sendgrid' is not a provider of sms"),
    ],
)
def test_a_provider_has_to_exist_and_to_serve_the_channel(values: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError, match=f"^{fault}"):
        settings(**values)


def test_every_unknown_provider_has_a_line_whatever_else_is_invalid() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(sms_providers="nope,none", routes="@a.example=x;12345=sendgrid,y", retry_delays="soon")
    assert caught.value.faults == (
        "SMS_PROVIDERS: 'nope' is not a provider of sms; use generic_sms, twilio",
        "SMS_PROVIDERS: 'none' is not a provider of sms; use generic_sms, twilio",
        "ROUTES: @a.example: 'x' is not a provider of email; use generic_email, sendgrid",
        "ROUTES: 12345: 'sendgrid' is not a provider of sms; use generic_sms, twilio",
        "ROUTES: 12345: 'y' is not a provider of sms; use generic_sms, twilio",
        "RETRY_DELAYS: must be a valid number, not 'soon'",
    )


def test_retry_delays_are_numbers_separated_by_commas() -> None:
    assert [delay.total_seconds() for delay in settings(retry_delays="1, 2.5,").delays] == [1, 2.5]


@pytest.mark.parametrize("value", ["0", "-1", "soon"])
def test_retry_delays_are_positive(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^RETRY_DELAYS: "):
        settings(retry_delays=value)
