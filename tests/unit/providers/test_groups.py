"""Inbound messages to groups, as the providers post them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import MessageType
from shared.ids import conversation_key
from shared.message import Message
from tests.unit.providers.parsing import json_bytes, parse
from tests.webhooks import FORM, GENERIC_SMS, JSON, SMS, TWILIO_MESSAGES, urlencoded

US, ANN, BEN, EVE = "+12016661234", "+18045551231", "+18045551232", "+18045551233"
GROUP = {"from": ANN, "to": [US, BEN], "type": "mms", "messaging_provider_id": "g-1", "body": "Hello all"}

members = st.lists(
    st.integers(min_value=2, max_value=9_999).map("+1804555{:04}".format), min_size=1, max_size=8, unique=True
)


def generic(**fields: Any) -> Message:  # noqa: ANN401 - any field
    [incoming] = parse(GENERIC_SMS, json_bytes({**GROUP, **fields}), JSON).messages
    return incoming.message


def twilio(**fields: Any) -> Message:  # noqa: ANN401 - any field
    [incoming] = parse(TWILIO_MESSAGES, urlencoded({**SMS, "From": ANN, "To": US, **fields}), FORM).messages
    return incoming.message


@given(members)
def test_everybody_takes_part_whatever_the_order(others: list[str]) -> None:
    author, *rest = others
    listed = [*rest, US]
    fields = {f"OtherRecipients{number}": number_ for number, number_ in enumerate(rest)}
    found = [
        generic(**{"from": author, "to": listed}),
        generic(**{"from": author, "to": [*reversed(listed), author, US]}),
        twilio(From=author, **fields),
    ]

    for message in found:
        assert message.participants == sorted({US, *others})
        assert message.conversation_key == conversation_key("sms", {US, *others})
        assert (message.type is MessageType.MMS) or not rest


@pytest.mark.parametrize(
    ("to", "recipients", "type_"),
    [
        ([US, BEN], [US, BEN], MessageType.MMS),
        ([US], [], MessageType.SMS),
        ([US, ANN], [], MessageType.SMS),
        (["(201) 666-1234", 18_045_551_232], [US, BEN], MessageType.MMS),
        ([US, BEN, {"phone_number": EVE}], [US, BEN], MessageType.MMS),
        ([None, US, BEN], [US, BEN], MessageType.MMS),
        (f"{US}, {BEN};", [US, BEN], MessageType.MMS),
        (f"{US},", [], MessageType.SMS),
        (f"tel:{US};phone-context=x", [], MessageType.SMS),
        ([US, "Ben@Example.com"], [US, "ben@example.com"], MessageType.MMS),
    ],
)
def test_recipients_are_read_as_far_as_possible(
    to: list[object] | str, recipients: list[str], type_: MessageType
) -> None:
    message = generic(to=to, type="sms")

    assert (message.to, message.recipients, message.type) == (US, recipients, type_)
    assert bool(message.warnings) == any(isinstance(each, dict) for each in to)


def test_a_reused_id_in_another_group_is_another_message() -> None:
    assert generic().id == generic().id
    assert len({generic(to=to).id for to in ([US, BEN], [US, EVE], US)}) == 3


def test_at_most_fifty_members_are_kept() -> None:
    message = generic(to=[US, *(f"+1804555{number:04}" for number in range(2_000, 2_060))])

    assert len(message.recipients) == 50
    assert message.warnings == ["to: only the first 50 of 61 recipients were kept"]


@pytest.mark.parametrize(
    ("fields", "recipients"),
    [
        ({"OtherRecipients0": BEN}, [US, BEN]),
        ({"OtherRecipients0": BEN, "OtherRecipients3": EVE}, [US, BEN, EVE]),
        ({"OtherRecipients10": EVE, "OtherRecipients2": BEN}, [US, BEN, EVE]),
        ({"OtherRecipients": BEN}, [US, BEN]),
        ({"OtherRecipients": [BEN, EVE]}, [US, BEN, EVE]),
        ({"OtherRecipients0": ""}, []),
        ({"OtherRecipients0": ANN}, []),
    ],
)
def test_twilio_names_the_other_recipients(fields: dict[str, Any], recipients: list[str]) -> None:
    message = twilio(**fields)

    assert (message.to, message.recipients) == (US, recipients)
    assert message.type is (MessageType.MMS if recipients else MessageType.SMS)
