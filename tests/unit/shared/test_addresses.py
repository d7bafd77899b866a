import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.addresses import InvalidAddressError, is_sender_id, parse_address
from shared.channels import Channel

GOOD_PHONES = {
    "+12016661234": "+12016661234",
    " +1 (201) 666-1234 ": "+12016661234",
    "(201) 666-1234": "+12016661234",
    "201.666.1234": "+12016661234",
    "+442079460958": "+442079460958",
    "+1 804 555 1234": "+18045551234",
    "12345": "12345",
    "HATCH": "HATCH",
    "Acme Inc": "Acme Inc",
}
BAD_PHONES = [
    "",
    "+1",
    "555-1234",
    "+999999999999999999",
    "not a phone number",
    "+1 201 666 1234 ext. 5",
    "+1201666\x001234",
    "1" * 400,
]
GOOD_EMAILS = {
    "user@usehatchapp.com": ("user@usehatchapp.com", "user@usehatchapp.com"),
    "[user@usehatchapp.com](mailto:user@usehatchapp.com)": ("user@usehatchapp.com", "user@usehatchapp.com"),
    "Ann Other <Ann.Other@Example.com>": ("Ann.Other@example.com", "ann.other@example.com"),
    "a+tag@b.co": ("a+tag@b.co", "a+tag@b.co"),
}
BAD_EMAILS = [
    "",
    "@",
    "a@",
    "a b@c.com",
    "a@b@c.com",
    "a@b.com\n",
    "[x](http://a.com)",
    "a@" + "b" * 300 + ".com",
]


@pytest.mark.parametrize(("text", "expected"), GOOD_PHONES.items())
def test_phone_numbers_normalise(text: str, expected: str) -> None:
    assert parse_address(text, Channel.SMS, default_region="US").key == expected


def test_national_form_is_read_by_region() -> None:
    assert parse_address("020 7946 0958", Channel.SMS, default_region="GB").key == "+442079460958"


@pytest.mark.parametrize("text", BAD_PHONES)
def test_impossible_numbers_are_refused(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        parse_address(text, Channel.SMS, default_region="US")


@pytest.mark.parametrize(("text", "expected"), GOOD_EMAILS.items())
def test_emails_keep_their_spelling_and_compare_by_key(text: str, expected: tuple[str, str]) -> None:
    address = parse_address(text, Channel.EMAIL, default_region="US")
    assert (address.spelling, address.key) == expected


@pytest.mark.parametrize("text", BAD_EMAILS)
def test_impossible_emails_are_refused(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        parse_address(text, Channel.EMAIL, default_region="US")


@pytest.mark.parametrize(("text", "expected"), [("HATCH", True), ("+12016661234", False), ("12345", False)])
def test_sender_ids_are_recognised(text: str, *, expected: bool) -> None:
    assert is_sender_id(parse_address(text, Channel.SMS, default_region="US")) is expected


@given(st.text(max_size=60), st.sampled_from(Channel))
def test_any_text_is_an_address_or_refused_and_normalising_is_idempotent(text: str, channel: Channel) -> None:
    try:
        address = parse_address(text, channel, default_region="US")
    except InvalidAddressError:
        return
    assert parse_address(address.spelling, channel, default_region="US").key == address.key
