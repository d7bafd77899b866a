"""Webhooks of all providers are stored in the stream, once."""

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.topology import Stream
from shared.channels import Direction
from shared.events import EventType
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.streams import NOWHERE, count, events
from tests.webhooks import (
    DELIVERED,
    FORM,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SIGNED,
    SMS,
    STATUS,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    by_sendgrid,
    by_twilio,
    multipart,
    urlencoded,
)
from tests.webhooks import events as batch

pytestmark = pytest.mark.integration

EMAIL = {
    "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
    "to": "[contact@gmail.com](mailto:contact@gmail.com)",
    "xillio_id": "message-2",
    "body": "text message with or without html",
    "attachments": ["attachment-url"],
    "timestamp": "2024-11-01T14:00:00Z",
}


async def test_signed_webhooks_are_stored_once(
    start_gateway: StartGateway, nats_url: str, jetstream: JetStreamContext
) -> None:
    async with start_gateway(nats_url=nats_url, database_url=NOWHERE, **SIGNED) as gateway:
        for _ in range(2):
            for path, request in (
                (TWILIO_MESSAGES, by_twilio(TWILIO_MESSAGES, SMS)),
                (TWILIO_STATUS, by_twilio(TWILIO_STATUS, STATUS)),
                (SENDGRID_INBOUND, by_sendgrid(multipart(MAIL), MULTIPART)),
                (SENDGRID_EVENTS, by_sendgrid(batch(DELIVERED, DELIVERED), JSON)),
            ):
                assert (await gateway.post(path, **request)).is_success
                request["headers"] = {"content-type": request["headers"]["content-type"]}
                assert (await gateway.post(path, **request)).status_code == 403

    sms, callback, email, event = await events(jetstream, Stream.INBOUND)
    received, reported = EventType.MESSAGE_RECEIVED, EventType.RECEIPT_RECEIVED
    assert [each.type for each in (sms, callback, email, event)] == [received, reported, received, reported]
    assert (sms.data.raw, callback.data.raw, event.data.raw) == (SMS, STATUS, DELIVERED)
    assert email.data.raw["fields"] == MAIL


async def test_an_inbound_email_from_the_specification(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    payload = {**EMAIL, "spam_score": 0.5, "headers": {"x": [None, "é"]}}
    responses = [await gateway.post("/api/webhooks/email", json=payload) for _ in range(2)]

    [event] = await events(jetstream, Stream.INBOUND)
    message = event.data.message
    assert [response.status_code for response in responses] == [200, 200]
    assert [response.json() for response in responses] == [{"id": str(message.id), "status": "received"}] * 2
    assert event.data.raw == payload
    assert (message.direction, message.from_) == (Direction.INBOUND, "user@usehatchapp.com")
    assert (message.provider, message.provider_message_id) == ("generic_email", "message-2")


async def test_a_receipt_is_stored_once(gateway: httpx.AsyncClient, jetstream: JetStreamContext) -> None:
    payload = {"messaging_provider_id": "SM1", "status": "undelivered", "error_code": 30_003, "more": 1}
    for _ in range(2):
        response = await gateway.post("/api/webhooks/sms/status", json=payload)
        assert (response.status_code, response.json()["status"]) == (200, "undelivered")

    [event] = await events(jetstream, Stream.INBOUND)
    assert (event.data.provider, event.data.provider_message_id) == ("generic_sms", "SM1")
    assert (event.data.error_code, event.data.raw) == ("30003", payload)


async def test_a_conversation_may_use_several_providers(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    sms = {"from": "(804) 555-1234", "to": "+12016661234", "type": "sms", "body": "Hello"}
    email = {"from": "Ann@Example.com", "to": "us@example.org", "body": "Hello"}
    await gateway.post("/api/webhooks/sms", json={**sms, "messaging_provider_id": "1"})
    await gateway.post(TWILIO_MESSAGES, content=urlencoded(SMS), headers=FORM)
    await gateway.post("/api/webhooks/email", json={**email, "xillio_id": "1"})
    await gateway.post(SENDGRID_INBOUND, content=multipart(MAIL), headers=MULTIPART)
    reply = {"from": "us@example.org", "to": "ann@example.com", "body": "Hello yourself"}
    sent = (await gateway.post("/api/messages/email", json=reply)).json()

    messages = [event.data.message for event in await events(jetstream, Stream.INBOUND)]
    keys = [message.conversation_key for message in messages]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert str(keys[2]) == sent["conversation_key"]
    providers = [message.provider for message in messages]
    assert providers == ["generic_sms", "twilio", "generic_email", "sendgrid"]


async def test_an_inbound_body_may_be_as_long_as_a_request(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    payload = {"from": "+18045551234", "to": "+12016661234", "type": "sms", "messaging_provider_id": "1"}
    response = await gateway.post("/api/webhooks/sms", json={**payload, "body": "x" * 250_000})

    assert response.status_code == 200
    assert await count(jetstream, Stream.INBOUND) == 1


async def test_the_largest_email_fits_into_the_stream(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    content = multipart(
        {**MAIL, "html": "\x01" * 5_000_000, "text": '"' * 5_000_000, "other": "é" * 5_000_000}
    )
    response = await gateway.post(SENDGRID_INBOUND, content=content, headers=MULTIPART)

    assert response.status_code == 200
    [event] = await events(jetstream, Stream.INBOUND)
    assert sorted(event.data.raw["cut"]) == ["html", "other", "text"]
    assert len(event.data.message.body) > 80_000
