import pytest

from dev.local_stack.errors import StackError
from dev.local_stack.settings_check import check_settings


def faults(environment: dict[str, str], *names_in_file: str) -> list[str]:
    with pytest.raises(StackError) as raised:
        check_settings(environment, names_in_file)
    return str(raised.value).splitlines()


def variables_of(lines: list[str]) -> list[str]:
    return [line.split()[0].rstrip(":") for line in lines]


def test_the_defaults_have_no_faults() -> None:
    assert check_settings({}, []) == []


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("SENDERS", "0", "SENDERS: must be greater than or equal to 1, not '0'"),
        ("MESSAGE_VALIDITY_HOURS", "-1", "MESSAGE_VALIDITY_HOURS: must be greater than 0, not '-1'"),
        ("BREAKER_FAILURES", "none", "BREAKER_FAILURES: must be a valid integer, not 'none'"),
        ("STREAM_REPLICAS", "6", "STREAM_REPLICAS: must be less than or equal to 5, not '6'"),
        ("SMS_PROVIDER_PORT", "x", "SMS_PROVIDER_PORT: must be a valid integer, not 'x'"),
        ("UNSUBSCRIBE_SECRET", "hunter2", "UNSUBSCRIBE_SECRET: must have at least 16 characters"),
    ],
)
def test_the_settings_of_each_process_are_checked(variable: str, value: str, fault: str) -> None:
    assert faults({variable: value}) == [fault]


def test_all_faults_are_reported_and_each_once() -> None:
    found = faults({"SENDERS": "0", "LOG_LEVEL": "loud", "BREAKER_PAUSE": "0"}, "SENDRES")
    assert variables_of(found) == ["SENDRES", "SENDERS", "LOG_LEVEL", "BREAKER_PAUSE"]


def test_a_chosen_provider_needs_its_credentials() -> None:
    found = faults({"SMS_PROVIDERS": "twilio, generic_sms"})
    assert variables_of(found) == ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"]


def test_a_provider_of_a_route_needs_its_credentials() -> None:
    assert variables_of(faults({"ROUTES": "@example.com=sendgrid"})) == ["SENDGRID_API_KEY"]


@pytest.mark.parametrize("invalid", ["SENDGRID_WEBHOOK_PUBLIC_KEY", "SENDGRID_URL", "LOG_FORMAT"])
def test_an_invalid_setting_of_a_provider_does_not_hide_a_missing_one(invalid: str) -> None:
    found = faults({"EMAIL_PROVIDERS": "sendgrid", invalid: "ftp"})
    assert variables_of(found) == [invalid, "SENDGRID_API_KEY"]


def test_an_invalid_setting_does_not_hide_that_the_gateway_is_open() -> None:
    found = faults({"GATEWAY_PORT": "abc", "GATEWAY_HOST": "0.0.0.0"})  # noqa: S104 - refused
    assert found == [
        "GATEWAY_PORT: must be a valid integer, not 'abc'",
        "ALLOW_UNAUTHENTICATED: must be true to listen on 0.0.0.0 without API_KEYS and WEBHOOK_SECRET",
    ]


def test_an_invalid_setting_does_not_hide_unknown_providers() -> None:
    found = faults({"SMS_PROVIDERS": "nope,none", "ROUTES": "@a.example=x", "RETRY_DELAYS": "a"})
    assert variables_of(found) == ["SMS_PROVIDERS", "SMS_PROVIDERS", "ROUTES", "RETRY_DELAYS"]


def test_a_fault_of_receiving_does_not_hide_one_of_sending() -> None:
    found = faults({"SMS_PROVIDERS": "twilio", "TWILIO_AUTH_TOKEN": "0" * 32})
    assert variables_of(found) == ["PUBLIC_BASE_URL", "TWILIO_ACCOUNT_SID"]


def test_an_invalid_setting_does_not_hide_that_a_server_is_missing() -> None:
    found = faults({"DATABASE_URL": "postgresql://h", "SENDERS": "0"})
    assert variables_of(found) == ["DATABASE_URL", "NATS_URL", "SENDERS"]


def test_a_provider_that_only_receives_needs_no_credentials_for_sending() -> None:
    environment = {"TWILIO_AUTH_TOKEN": "0" * 32, "PUBLIC_BASE_URL": "https://messages.example"}
    assert check_settings(environment, []) == []


def test_a_generic_provider_beside_a_real_one_needs_a_url() -> None:
    twilio = {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "0" * 32}
    environment = {"SMS_PROVIDERS": "twilio,generic_sms", "PUBLIC_BASE_URL": "https://a.example", **twilio}
    assert variables_of(faults(environment)) == ["SMS_PROVIDER_URL"]
    assert check_settings({**environment, "SMS_PROVIDER_URL": "https://sms.example"}, []) == []


def test_a_misspelt_name_in_the_file_is_a_fault() -> None:
    (fault,) = faults({}, "GATEWAY_PROT")
    assert fault == "GATEWAY_PROT in .env is not a known setting; did you mean GATEWAY_PORT?"


def test_another_unknown_name_in_the_file_is_a_remark() -> None:
    names = ["SOMETHING_ELSE", "senders", "OTEL_TRACES_SAMPLER", "COMPOSE_PROJECT_NAME", "POSTGRES_PASSWORD"]
    assert check_settings({}, names) == [".env sets SOMETHING_ELSE, which nothing here reads"]


def test_values_that_may_be_secret_are_not_repeated() -> None:
    found = faults({"API_KEYS": "hunter2", "WEBHOOK_SECRET": "hunter2", "UNSUBSCRIBE_SECRET": "hunter2"})
    assert "hunter2" not in "\n".join(found)
