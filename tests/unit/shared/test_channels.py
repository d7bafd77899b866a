import pytest

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
