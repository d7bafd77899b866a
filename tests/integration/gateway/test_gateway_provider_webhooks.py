"""What Twilio and SendGrid post ends up in the stream, once, and in the conversation it belongs to."""

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.topology import Stream
from shared.events import MessageReceived, ReceiptReceived
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.test_gateway_intake import NOWHERE, published
from tests.webhooks import (
    DELIVERED,
    FORM,
    JSON,
    MAIL,
    MULTIPART,
    PUBLIC_KEY,
    PUBLIC_URL,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TOKEN,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    by_sendgrid,
    by_twilio,
    events,
    multipart,
    urlencoded,
)

pytestmark = pytest.mark.integration


async def test_signed_webhooks_are_stored_once(
    start_gateway: StartGateway, nats_url: str, jetstream: JetStreamContext
) -> None:
    secrets = {
        "twilio_auth_token": TOKEN,
        "public_base_url": PUBLIC_URL,
        "sendgrid_webhook_public_key": PUBLIC_KEY,
    }
    async with start_gateway(nats_url=nats_url, database_url=NOWHERE, **secrets) as gateway:
        for _ in range(2):
            for path, request in (
                (TWILIO_MESSAGES, by_twilio(TWILIO_MESSAGES, SMS)),
                (TWILIO_STATUS, by_twilio(TWILIO_STATUS, STATUS)),
                (SENDGRID_INBOUND, by_sendgrid(multipart(MAIL), MULTIPART)),
                (SENDGRID_EVENTS, by_sendgrid(events(DELIVERED, DELIVERED), JSON)),
            ):
                assert (await gateway.post(path, **request)).is_success
                request["headers"] = {"content-type": request["headers"]["content-type"]}
                assert (await gateway.post(path, **request)).status_code == 403

    sms, callback, mail, event = await published(jetstream, Stream.INBOUND)
    assert isinstance(sms, MessageReceived)
    assert sms.data.raw == SMS
    assert isinstance(callback, ReceiptReceived)
    assert callback.data.raw == STATUS
    assert isinstance(mail, MessageReceived)
    assert mail.data.raw["fields"] == MAIL
    assert isinstance(event, ReceiptReceived)
    assert event.data.raw == DELIVERED


async def test_a_conversation_may_go_through_several_providers(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    sms = {"from": "(804) 555-1234", "to": "+12016661234", "type": "sms", "body": "Hello"}
    mail = {"from": "Ann@Example.com", "to": "us@example.org", "body": "Hello"}
    await gateway.post("/api/webhooks/sms", json={**sms, "messaging_provider_id": "1"})
    await gateway.post(TWILIO_MESSAGES, content=urlencoded(SMS), headers=FORM)
    await gateway.post("/api/webhooks/email", json={**mail, "xillio_id": "1"})
    await gateway.post(SENDGRID_INBOUND, content=multipart(MAIL), headers=MULTIPART)
    answer = {"from": "us@example.org", "to": "ann@example.com", "body": "Hello yourself"}
    sent = (await gateway.post("/api/messages/email", json=answer)).json()

    messages = [event.data.message for event in await published(jetstream, Stream.INBOUND)]  # type: ignore[union-attr] # all are
    keys = [message.conversation_key for message in messages]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert str(keys[2]) == sent["conversation_key"]
    assert [message.provider for message in messages] == [
        "generic_sms",
        "twilio",
        "generic_email",
        "sendgrid",
    ]


async def test_without_nats_providers_are_told_to_come_again(start_gateway: StartGateway) -> None:
    async with start_gateway(ready=False, nats_url="nats://127.0.0.1:1", database_url=NOWHERE) as gateway:
        responses = [
            await gateway.post(TWILIO_MESSAGES, content=urlencoded(SMS), headers=FORM),
            await gateway.post(TWILIO_STATUS, content=urlencoded(STATUS), headers=FORM),
            await gateway.post(SENDGRID_INBOUND, content=multipart(MAIL), headers=MULTIPART),
            await gateway.post(SENDGRID_EVENTS, content=events(DELIVERED), headers=JSON),
        ]

    assert [response.status_code for response in responses] == [503] * 4


async def test_the_largest_mail_there_is_fits_into_the_stream(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    content = multipart(
        {**MAIL, "html": "\x01" * 5_000_000, "text": '"' * 5_000_000, "other": "é" * 5_000_000}
    )
    response = await gateway.post(SENDGRID_INBOUND, content=content, headers=MULTIPART)

    assert response.status_code == 200
    [event] = await published(jetstream, Stream.INBOUND)
    assert isinstance(event, MessageReceived)
    assert sorted(event.data.raw["cut"]) == ["html", "other", "text"]
    assert len(event.data.message.body) > 80_000
