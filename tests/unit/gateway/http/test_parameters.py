from uuid import UUID

import pytest

from services.gateway.http.errors import InvalidRequestError
from services.gateway.http.parameters import parse_address, parse_uuid
from shared.channels import Channel

KEY = "13db6b6e-2dbd-5c1c-b749-f90205e39fde"


@pytest.mark.parametrize(
    ("text", "channel", "key"),
    [
        ("+18045551234", Channel.SMS, "+18045551234"),
        (" 18045551234", Channel.SMS, "+18045551234"),  # an unescaped + in a query string
        ("804-555-1234", Channel.SMS, "+18045551234"),
        ("12345", Channel.SMS, "12345"),
        ("User@Example.com", Channel.EMAIL, "user@example.com"),
        ("user tag@example.com", Channel.EMAIL, "user+tag@example.com"),
        ("user+tag@example.com", Channel.EMAIL, "user+tag@example.com"),
    ],
)
def test_an_address_is_normalised_as_in_a_message(text: str, channel: Channel, key: str) -> None:
    assert parse_address(text, "participant", default_region="US") == (channel, key)


@pytest.mark.parametrize("text", ["", " ", "+", "@", "a@", "\0"])
def test_the_parameter_of_an_invalid_address_is_named(text: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        parse_address(text, "participant", default_region="US")

    assert [fault.field for fault in error.value.faults] == ["participant"]


@pytest.mark.parametrize("text", [KEY, KEY.upper(), KEY.replace("-", "")])
def test_an_id_has_several_spellings(text: str) -> None:
    assert parse_uuid(text) == UUID(KEY)


@pytest.mark.parametrize("text", ["", "1", "\0", KEY + "0", KEY[:-1]])
def test_any_other_text_is_not_an_id(text: str) -> None:
    assert parse_uuid(text) is None
