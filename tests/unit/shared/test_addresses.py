import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.addresses import Address, InvalidAddressError, is_sender_id, parse_email, parse_phone
from shared.channels import Channel

VALID_PHONES = {
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
INVALID_PHONES = [
    "",
    "+1",
    "555-1234",
    "+999999999999999999",
    "not a phone number",
    "+1 201 666 1234 ext. 5",
    "+1201666\x001234",
    "1" * 400,
]
VALID_EMAILS = {
    "user@usehatchapp.com": ("user@usehatchapp.com", "user@usehatchapp.com"),
    "[user@usehatchapp.com](mailto:user@usehatchapp.com)": ("user@usehatchapp.com", "user@usehatchapp.com"),
    "Ann Other <Ann.Other@Example.com>": ("Ann.Other@example.com", "ann.other@example.com"),
    "a+tag@b.co": ("a+tag@b.co", "a+tag@b.co"),
}
INVALID_EMAILS = [
    "",
    "@",
    "a@",
    "a b@c.com",
    "a@b@c.com",
    "a@b.com\n",
    "[x](http://a.com)",
    "a@" + "b" * 300 + ".com",
]


@pytest.mark.parametrize(("text", "expected"), VALID_PHONES.items())
def test_phone_numbers_become_e164(text: str, expected: str) -> None:
    assert parse_phone(text, "US").key == expected


def test_a_national_number_belongs_to_the_default_region() -> None:
    assert parse_phone("020 7946 0958", "GB").key == "+442079460958"


@pytest.mark.parametrize("text", INVALID_PHONES)
def test_impossible_numbers_are_rejected(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        parse_phone(text, "US")


@pytest.mark.parametrize(("text", "expected"), VALID_EMAILS.items())
def test_emails_keep_their_spelling_beside_their_key(text: str, expected: tuple[str, str]) -> None:
    address = parse_email(text)
    assert (address.spelling, address.key) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Jörg Müller",
            "李雷",
            "Ann 🎉",
            "St. John",
            "Doe, Jane",
            "Jane [Sales]",
            "Jane (Sales)",
            "Ann \u2013 Sales",
        ),
        *(
            "O\u2019Brien",
            "Jane\u00a0Doe",
            "山田\u3000太郎",
            "👩\u200d💻 Jane",
            "jane@example.com",
            "Casey's Garage",
        ),
    ],
)
def test_a_display_name_may_be_in_any_script(name: str) -> None:
    for text in (f"{name} <jane@example.com>", f'"{name}" <jane@example.com>', f"{name}<jane@example.com>"):
        assert parse_email(text) == Address("jane@example.com", "jane@example.com", name)


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=60))
def test_a_mailbox_keeps_its_name(name: str) -> None:
    address = Address("jane@example.com", "jane@example.com", name.strip() or None)
    assert parse_email(address.mailbox) == address


@pytest.mark.parametrize("text", INVALID_EMAILS)
def test_impossible_emails_are_rejected(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        parse_email(text)


@pytest.mark.parametrize(("text", "expected"), [("HATCH", True), ("+12016661234", False), ("12345", False)])
def test_sender_ids_are_recognised(text: str, *, expected: bool) -> None:
    assert is_sender_id(parse_phone(text, "US")) is expected


@given(st.text(max_size=60), st.sampled_from(Channel))
def test_any_text_is_rejected_or_an_address_whose_spelling_has_the_same_key(
    text: str, channel: Channel
) -> None:
    try:
        address = channel.parse_address(text, default_region="US")
    except InvalidAddressError:
        return
    assert channel.parse_address(address.spelling, default_region="US").key == address.key
