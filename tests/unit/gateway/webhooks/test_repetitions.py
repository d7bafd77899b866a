"""A webhook that somebody has recorded changes nothing when it is posted again."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.bus.topology import Stream
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import calling, create_gateway
from tests.unit.gateway.requests import SEND_SMS
from tests.unit.gateway.requests import SMS as OUTBOUND
from tests.webhooks import PUBLIC_URL, SMS, TOKEN, TWILIO_MESSAGES, TWILIO_STATUS, by_twilio, urlencoded

START = datetime(2026, 1, 1, tzinfo=UTC)


def sms(number: int, body: str) -> dict[str, str]:
    return {**SMS, "MessageSid": f"SM{number:032}", "Body": body}


@pytest.mark.parametrize("word", ["START", "YES"])
async def test_a_start_posted_again_does_not_undo_a_later_stop(word: str) -> None:
    now = START
    server = JetStream(lambda: now)
    app = create_gateway(server, clock=lambda: now, twilio_auth_token=TOKEN, public_base_url=PUBLIC_URL)
    recorded = by_twilio(TWILIO_MESSAGES, sms(2, word))
    async with calling(app) as client:
        for posted in (by_twilio(TWILIO_MESSAGES, sms(1, "STOP")), recorded):
            assert (await client.post(TWILIO_MESSAGES, **posted)).status_code == 200
            now += timedelta(hours=1)
        assert (await client.post(SEND_SMS, json=OUTBOUND)).status_code == 202

        assert (
            await client.post(TWILIO_MESSAGES, **by_twilio(TWILIO_MESSAGES, sms(3, "STOP")))
        ).status_code == 200
        changes = server.messages(Stream.SUPPRESSIONS)
        for later in (timedelta(minutes=11), timedelta(days=1), timedelta(days=400)):
            now += later
            assert (await client.post(TWILIO_MESSAGES, **recorded)).status_code == 200
            assert (await client.post(SEND_SMS, json=OUTBOUND)).status_code == 409
        assert server.messages(Stream.SUPPRESSIONS) == changes


async def test_an_old_signature_does_not_make_another_message() -> None:
    server = JetStream(lambda: START)
    app = create_gateway(server, twilio_auth_token=TOKEN, public_base_url=PUBLIC_URL)
    text = sms(1, "STOPFrom+15005550000")
    genuine = by_twilio(TWILIO_MESSAGES, text)
    moved = (
        {
            "MessageSid": f"SM{1:032}MessagingServiceSidNumMedia0",
            "MessagingServiceSid": None,
            "NumMedia": None,
        },
        {"Body": "STOP", "From": "+15005550000", "From+18045551234": ""},
    )
    async with calling(app) as client:
        assert (await client.post(TWILIO_MESSAGES, **genuine)).status_code == 200
        for changes in moved:
            form = {name: value for name, value in {**text, **changes}.items() if value is not None}
            forged = {**genuine, "content": urlencoded(form)}
            assert (await client.post(TWILIO_MESSAGES, **forged)).status_code == 200
    assert len(server.messages(Stream.INBOUND)) == 1
    assert len(server.messages(Stream.DEADLETTER)) == len(moved)


async def test_a_refusal_posted_again_does_not_undo_a_later_start() -> None:
    now = START
    server = JetStream(lambda: now)
    app = create_gateway(server, clock=lambda: now, twilio_auth_token=TOKEN, public_base_url=PUBLIC_URL)
    refusal = by_twilio(
        TWILIO_STATUS,
        {
            "MessageSid": f"SM{1:032}",
            "AccountSid": SMS["AccountSid"],
            "MessageStatus": "failed",
            "ErrorCode": "21610",
            "From": OUTBOUND["from"] or "",
            "To": OUTBOUND["to"] or "",
        },
    )
    async with calling(app) as client:
        assert (await client.post(TWILIO_STATUS, **refusal)).status_code == 204
        assert (await client.post(SEND_SMS, json=OUTBOUND)).status_code == 409
        now += timedelta(hours=1)
        start = by_twilio(TWILIO_MESSAGES, sms(2, "START"))
        assert (await client.post(TWILIO_MESSAGES, **start)).status_code == 200
        now += timedelta(hours=1)
        assert (await client.post(TWILIO_STATUS, **refusal)).status_code == 204
        assert (await client.post(SEND_SMS, json=OUTBOUND)).status_code == 202
