from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.messages.schemas import EmailRequest, SmsRequest
from shared.addresses import Address
from shared.channels import Channel, Direction, MessageType
from shared.ids import conversation_key, new_message_id
from shared.message import IncomingMessage, Message
from tests import messages

ALICE, BOB = Address(messages.ALICE, messages.ALICE), Address(messages.BOB, messages.BOB)


def between(direction: Direction) -> Message:
    return Message.between(
        ALICE,
        BOB,
        type=MessageType.MMS,
        id=new_message_id(),
        direction=direction,
        body="",
        attachments=[],
        timestamp=messages.now(),
        created_at=messages.now(),
    )


@pytest.mark.parametrize("direction", Direction)
def test_a_message_has_the_keys_of_both_addresses(direction: Direction) -> None:
    message = between(direction)

    assert (message.from_key, message.recipient_keys) == (ALICE.key, [BOB.key])
    assert message.participants == sorted([ALICE.key, BOB.key])
    assert message.channel is Channel.SMS
    assert message.conversation_key == conversation_key(Channel.SMS, [BOB.key, ALICE.key])


def test_a_misspelt_field_is_not_lost() -> None:
    with pytest.raises(TypeError, match="email_idd"):
        IncomingMessage.of(
            provider="p",
            provider_message_id="1",
            from_=ALICE,
            to=BOB,
            raw={},
            type=MessageType.SMS,
            body="",
            attachments=[],
            timestamp=messages.now(),
            created_at=messages.now(),
            email_idd="<1@b.c>",
        )


@pytest.mark.parametrize("request_model", [SmsRequest, EmailRequest])
def test_every_field_of_a_request_is_a_field_of_the_message(
    request_model: type[SmsRequest | EmailRequest],
) -> None:
    assert request_model.model_fields.keys() <= Message.model_fields.keys()


@given(st.datetimes(timezones=st.just(UTC)), st.timedeltas(timedelta(0), timedelta(days=7)))
def test_any_message_has_an_expiry(send_at: datetime, validity: timedelta) -> None:
    expiry = messages.message(send_at=send_at).expiry(validity, messages.now())

    assert expiry >= send_at
