import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.addresses import MAX_ADDRESS_LENGTH, Address, InvalidAddressError, parse_email, read_email
from shared.channels import Channel
from shared.phone_numbers import is_sender_id, parse_phone, read_phone
from shared.text import NOT_A_LINE

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


# --- Numbers without a plus ---


@pytest.mark.parametrize(
    ("region", "text", "expected"),
    [
        ("US", "4534412345", "+4534412345"),
        ("US", "6591234567", "+6591234567"),
        ("US", "447911123456", "+447911123456"),
        ("US", "2125551234", "+12125551234"),
        ("US", "12125551234", "+12125551234"),
        ("US", "011 44 7911 123456", "+447911123456"),
        ("DE", "4915123456789", "+4915123456789"),
        ("DE", "0151 23456789", "+4915123456789"),
        ("ID", "62812345678", "+62812345678"),
        ("XK", "38343123456", "+38343123456"),
        ("NO", "47412345", "+4747412345"),
    ],
)
def test_the_valid_reading_of_a_number_without_a_plus_counts(region: str, text: str, expected: str) -> None:
    assert parse_phone(text, region).key == read_phone(text, region).key == expected  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    ["06 12 34 56 78", "0412 345 678", "050 123 4567", "000-000-0000", "123-456-7890", "804-055-1234"],
)
def test_a_national_form_that_no_plan_has_is_rejected_for_clients_only(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        parse_phone(text, "US")
    address = read_phone(text, "US")
    assert address
    assert address.spelling == text


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_every_region_has_one_key_for_all_notations_of_a_number(region: str) -> None:
    number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    number = number or phonenumbers.example_number(region)
    assert number
    forms = phonenumbers.PhoneNumberFormat
    e164 = phonenumbers.format_number(number, forms.E164)
    written = [phonenumbers.format_number(number, form) for form in (forms.INTERNATIONAL, forms.RFC3966)]
    national = phonenumbers.format_number(number, forms.NATIONAL)
    keys = [parse_phone(text, "US").key for text in (e164, *written, f"\u202a{e164}\u202c")]

    assert set(keys) == {e164}
    assert parse_phone(e164[1:], region).key == e164
    # A few countries have national numbers of the length of short codes.
    assert parse_phone(national, region).key in {e164, national}


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_numbers_of_every_kind_are_kept_in_the_plan_of_their_region(region: str) -> None:
    forms = phonenumbers.PhoneNumberFormat
    for kind in phonenumbers.PhoneNumberType.values():
        number = phonenumbers.example_number_for_type(region, kind)
        if number is None or (region, kind) == ("CA", phonenumbers.PhoneNumberType.UAN):
            continue  # 310-1234 in Canada cannot be dialled from abroad
        e164 = phonenumbers.format_number(number, forms.E164)
        for form in (forms.E164, forms.INTERNATIONAL, forms.RFC3966):
            assert parse_phone(phonenumbers.format_number(number, form), "US").key == e164


# --- What providers deliver ---


@given(st.text(max_size=400) | st.text("İ", min_size=200, max_size=320), st.sampled_from(Channel))
def test_any_text_that_a_provider_delivers_is_an_address_or_missing(text: str, channel: Channel) -> None:
    address = channel.read_address(text, default_region="US")

    if address is not None:
        assert 0 < len(address.spelling) <= MAX_ADDRESS_LENGTH
        assert 0 < len(address.key) <= MAX_ADDRESS_LENGTH
        assert not NOT_A_LINE.search(address.spelling)
        assert channel.read_address(text, default_region="US") == address


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("MAILER-DAEMON", "mailer-daemon"),
        ("a..b@example.com", "a..b@example.com"),
        ('"a..b"@example.com', "a..b@example.com"),
        ('Ann <"a."@example.com>', "a.@example.com"),
        ('"a b"@example.com', '"a b"@example.com'),
        ("Ann@under_score.example", "ann@under_score.example"),
        ("x@host.local", "x@host.local"),
        ("x_@under_score.example\u200b", "x_@under_score.example"),
        ("jörg@example.com", "jörg@example.com"),
        ("Jo\u0308rg <jo\u0308rg@example.com>", "jörg@example.com"),
    ],
)
def test_an_email_address_is_kept_as_written_if_it_cannot_be_normalised(text: str, key: str) -> None:
    address = read_email(text)

    assert address
    assert address.key == key


def test_two_people_whose_addresses_fold_to_the_same_text_are_not_one() -> None:
    assert parse_email("a@straße.example").key == "a@xn--strae-oqa.example"
    assert parse_email("a@strasse.example").key == "a@strasse.example"
    ss, sharp = read_email("strasse@example.com"), read_email("straße@example.com")
    assert ss
    assert sharp
    assert ss.key != sharp.key
