import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import RULES, Channel, MessageType, channel_of_address
from shared.status import Status


def test_every_channel_has_rules() -> None:
    assert set(RULES) == set(Channel)
    assert all(channel.rules is RULES[channel] for channel in Channel)


def test_every_message_type_belongs_to_one_channel() -> None:
    types = [type_ for rules in RULES.values() for type_ in rules.types]

    assert sorted(types) == sorted(MessageType)
    assert all(type_ in type_.channel.rules.types for type_ in MessageType)


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("+12016661234", Channel.SMS),
        ("HATCH", Channel.SMS),
        ("12345", Channel.SMS),
        ("ann@example.com", Channel.EMAIL),
        ("@", Channel.EMAIL),
    ],
)
def test_the_channel_of_an_address_follows_from_its_text(text: str, channel: Channel) -> None:
    assert channel_of_address(text) is channel


@pytest.mark.parametrize("channel", Channel)
def test_a_receipt_reports_a_status_that_a_sent_message_can_have(channel: Channel) -> None:
    assert all(
        status.precedence >= Status.SENT.precedence for status in channel.rules.receipt_statuses.values()
    )


noise = st.text(st.characters(categories=["P", "S", "Z", "Cf"]), max_size=2)


@pytest.mark.parametrize("channel", Channel)
@given(data=st.data())
def test_a_word_of_a_receipt_is_known_in_any_spelling(channel: Channel, data: st.DataObject) -> None:
    word, status = data.draw(st.sampled_from(sorted(channel.rules.receipt_statuses.items())))
    spelling = "".join(data.draw(noise) + data.draw(st.sampled_from([char, char.upper()])) for char in word)

    assert channel.receipt_status(spelling) is status


@given(st.text())
def test_any_word_of_a_receipt_has_a_status(word: str) -> None:
    assert Channel.SMS.receipt_status(word) in {*Channel.SMS.rules.receipt_statuses.values(), Status.UNKNOWN}
