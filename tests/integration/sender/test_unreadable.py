"""State that cannot be read does not stop the sender, and nothing is sent without knowing what it says."""

from datetime import UTC, datetime, timedelta

import pytest
from nats.js import JetStreamContext

from shared.bus.topology import DELIVERIES_BUCKET, LIMITS_BUCKET, suppression_subject
from shared.channels import Channel
from shared.ids import suppression_key
from tests import messages
from tests.integration.sender.conftest import Harness, SenderFactory

UNREADABLE = [b"", b"\xff", b'{"state":"teleported"}']


@pytest.mark.parametrize("payload", UNREADABLE)
async def test_a_message_with_an_unreadable_ledger_entry_is_dead_lettered(
    harness: Harness, sender: SenderFactory, jetstream: JetStreamContext, payload: bytes
) -> None:
    request = messages.request()
    await jetstream.publish(f"$KV.{DELIVERIES_BUCKET}.{request.message.id}", payload)
    await harness.accept(request)
    next_one = await harness.accept()
    async with sender():
        await harness.wait_for_status(next_one, "sent")
    [dead_letter] = await harness.dead_letters()
    assert (dead_letter["reason"], dead_letter["message_id"]) == ("unreadable_state", str(request.message.id))
    assert dead_letter["request"] is not None
    assert [each["idempotency_key"] for each in await harness.provider.messages()] == [
        str(next_one.message.id)
    ]


async def test_a_message_with_an_unreadable_suppression_is_not_sent(
    harness: Harness, sender: SenderFactory, jetstream: JetStreamContext
) -> None:
    pair = suppression_key(Channel.SMS, messages.ALICE, messages.BOB)
    await jetstream.publish(suppression_subject(Channel.SMS, pair), b"\xff")
    request = await harness.accept()
    other = await harness.accept(messages.request(messages.message(to="+18045550000")))
    async with sender():
        await harness.wait_for_status(request, "failed")
        await harness.wait_for_status(other, "sent")
    [dead_letter] = await harness.dead_letters()
    assert dead_letter["reason"] == "opted_out"


async def test_unreadable_pauses_are_ignored_and_absurd_ones_last_a_day(
    harness: Harness, sender: SenderFactory, jetstream: JetStreamContext
) -> None:
    for payload in (b"", b"\xff", b'{"provider":"generic_sms","until":1e999}'):
        await jetstream.publish(f"$KV.{LIMITS_BUCKET}.pause.generic_sms", payload)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")


async def test_a_message_that_never_expires_is_sent(harness: Harness, sender: SenderFactory) -> None:
    """Its ledger entry would have to be kept for longer than the server can count."""
    never = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)
    request = await harness.accept(messages.request(expires_at=never))
    async with sender():
        await harness.wait_for_status(request, "sent")
