"""Messages that clients send are stored in the streams, once."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from nats.js import JetStreamContext

from services.gateway.messages.idempotency import IdempotencyStore, StoredRequest, fingerprint
from services.gateway.messages.schemas import SmsRequest
from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore
from shared.bus.publisher import Publisher
from shared.bus.topology import IDEMPOTENCY_BUCKET, Stream
from shared.channels import MessageType
from shared.events import message_accepted
from shared.ids import new_message_id, request_id
from shared.validation import context_of
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.streams import NOWHERE, count, events
from tests.webhooks import MAIL, MULTIPART, SENDGRID_INBOUND, multipart

pytestmark = pytest.mark.integration

EVENT = {"Content-Type": "application/cloudevents+json"}

SEND_SMS, SEND_EMAIL = "/api/messages/sms", "/api/messages/email"
SMS = {
    "from": "+12016661234",
    "to": "+18045551234",
    "type": "sms",
    "body": "text message",
    "attachments": None,
    "timestamp": "2024-11-01T14:00:00Z",
}
SMS_OF_NOW = {name: value for name, value in SMS.items() if name != "timestamp"}
EMAIL = {
    "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
    "to": "[contact@gmail.com](mailto:contact@gmail.com)",
    "body": "text message with or without html",
    "attachments": ["attachment-url"],
    "timestamp": "2024-11-01T14:00:00Z",
}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_an_sms_is_accepted_and_published(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    response = await gateway.post(SEND_SMS, json=SMS, headers={"traceparent": TRACE})

    body = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/api/messages/{body['id']}"
    created_at = body.pop("created_at")
    assert created_at.endswith("Z")
    assert body == {
        "id": body["id"],
        "conversation_id": None,
        "conversation_key": "71c1fd9f-069f-5eba-95b0-d385e1548904",
        "direction": "outbound",
        "type": "sms",
        "from": "+12016661234",
        "to": "+18045551234",
        "recipients": ["+18045551234"],
        "from_name": None,
        "to_name": None,
        "subject": None,
        "body": "text message",
        "body_type": None,
        "text": None,
        "reply_to": [],
        "cc": [],
        "bcc": [],
        "attachments": [],
        "timestamp": "2024-11-01T14:00:00Z",
        "status": "accepted",
        "provider": None,
        "provider_message_id": None,
        "error": None,
        "send_at": None,
        "priority": "transactional",
        "warnings": [],
        "reference": None,
        "metadata": {},
        "media": [],
        "segments": 1,
        "encoding": "GSM-7",
    }
    [event] = await events(jetstream, Stream.OUTBOUND)
    assert str(event.data.message.id) == body["id"]
    assert event.data.generation == 0
    assert event.data.expires_at == datetime.fromisoformat(created_at) + timedelta(hours=4)
    raw = await jetstream.get_msg(Stream.OUTBOUND, 1)
    assert (raw.subject or "").startswith("outbound.sms.")
    assert raw.headers == {**EVENT, "Nats-Msg-Id": str(event.id), "traceparent": TRACE}


async def test_an_email_from_the_specification(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    response = await gateway.post(SEND_EMAIL, json={**EMAIL, "subject": "Hello"})

    assert response.status_code == 202
    assert response.json()["from"] == "user@usehatchapp.com"
    [event] = await events(jetstream, Stream.OUTBOUND)
    message = event.data.message
    assert (message.type, message.subject) == (MessageType.EMAIL, "Hello")
    assert message.attachments == ["attachment-url"]


async def test_the_same_request_without_a_key_is_another_message(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    responses = [await gateway.post(SEND_SMS, json=SMS) for _ in range(2)]

    assert len({response.json()["id"] for response in responses}) == 2
    assert await count(jetstream, Stream.OUTBOUND) == 2


@pytest.mark.parametrize("payload", [SMS, SMS_OF_NOW])
async def test_requests_with_the_same_idempotency_key_are_one_message(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext, payload: dict[str, Any]
) -> None:
    first, *others = [
        await gateway.post(SEND_SMS, json=payload, headers={"Idempotency-Key": key})
        for key in ("a-key", '"a-key"', "a-key")
    ]

    assert first.status_code == 202
    assert [other.content for other in others] == [first.content] * 2
    assert [other.headers["location"] for other in others] == [first.headers["location"]] * 2
    assert await count(jetstream, Stream.OUTBOUND) == 1


async def test_equal_requests_at_the_same_moment_get_the_same_response(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    headers = {"Idempotency-Key": "a-key"}
    responses = await asyncio.gather(
        *(gateway.post(SEND_SMS, json=SMS_OF_NOW, headers=headers) for _ in range(20))
    )

    assert {response.status_code for response in responses} == {202}
    assert len({response.content for response in responses}) == 1
    assert await count(jetstream, Stream.OUTBOUND) == 1


async def test_a_key_is_valid_for_one_message_only(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    headers = {"Idempotency-Key": "a-key"}
    await gateway.post(SEND_SMS, json=SMS, headers=headers)
    others = [
        await gateway.post(SEND_SMS, json={**SMS, "body": "another"}, headers=headers),
        await gateway.post(SEND_EMAIL, json=EMAIL, headers=headers),
    ]

    assert [other.status_code for other in others] == [422, 422]
    assert [other.json()["errors"][0]["field"] for other in others] == ["Idempotency-Key"] * 2
    assert await count(jetstream, Stream.OUTBOUND) == 1


async def test_the_repetition_of_an_interrupted_request_publishes_its_message(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext, bus: Bus, publisher: Publisher
) -> None:
    answered = await gateway.post(SEND_SMS, json=SMS, headers={"Idempotency-Key": "a-key"})
    [event] = await events(jetstream, Stream.OUTBOUND)
    # Of another message, only the idempotency record was stored.
    id_ = new_message_id()
    message = event.data.message.model_copy(update={"id": id_})
    interrupted = message_accepted(event.data.model_copy(update={"message": message}), time=event.time)
    body = SmsRequest.model_validate(SMS, context=context_of("US"))
    requests = KeyValueStore.bucket(bus, publisher, IDEMPOTENCY_BUCKET, StoredRequest)
    first = StoredRequest(fingerprint=fingerprint(body), event=interrupted)
    await IdempotencyStore(requests).claim(request_id("anonymous", "b-key"), first)

    response = await gateway.post(SEND_SMS, json=SMS, headers={"Idempotency-Key": "b-key"})

    assert response.json() == {**answered.json(), "id": str(id_)}
    [_, repeated] = await events(jetstream, Stream.OUTBOUND)
    assert (repeated.id, repeated.data.message) == (interrupted.id, message)
    # Its time to be sent begins with its acceptance, which may be long after the first attempt.
    assert repeated.data.expires_at > interrupted.data.expires_at


async def test_clients_do_not_share_their_keys(
    start_gateway: StartGateway, nats_url: str, jetstream: JetStreamContext
) -> None:
    keys = ("a-first-key-of-it", "a-second-key-of-it", "b-first-key-of-it")
    async with start_gateway(
        nats_url=nats_url, database_url=NOWHERE, api_keys=",".join(f"{key[0]}:{key}" for key in keys)
    ) as gateway:
        ids = []
        for key in keys:
            headers = {"Idempotency-Key": "a-key", "Authorization": f"Bearer {key}"}
            ids.append((await gateway.post(SEND_SMS, json=SMS, headers=headers)).json()["id"])

    assert ids[0] == ids[1] != ids[2]
    assert await count(jetstream, Stream.OUTBOUND) == 2


async def test_an_email_replies_to_the_newest_one_in_its_conversation(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    ours = {"from": "us@example.org", "to": "Ann@example.com", "body": "Hello"}
    key = {"Idempotency-Key": "before"}
    before = await gateway.post(SEND_EMAIL, json=ours, headers=key)
    for number in (1, 2):
        mail = {**MAIL, "headers": f"Message-ID: <{number}@example.com>"}
        await gateway.post(SENDGRID_INBOUND, content=multipart(mail), headers=MULTIPART)
    again = await gateway.post(SEND_EMAIL, json=ours, headers=key)
    await gateway.post(SEND_EMAIL, json=ours)

    assert again.json() == before.json()
    sent = [event.data.message.in_reply_to for event in await events(jetstream, Stream.OUTBOUND)]
    assert sent == [None, "<2@example.com>"]


async def test_a_reply_has_the_references_and_the_subject_of_its_parent(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    ours = {"from": "us@example.org", "to": "Ann@example.com", "body": "Hello"}
    headers = "Message-ID: <3@example.com>\nReferences: <1@example.com>\n <2@example.com>\n"
    mail = {**MAIL, "headers": headers, "subject": "Quote"}
    await gateway.post(SENDGRID_INBOUND, content=multipart(mail), headers=MULTIPART)

    response = await gateway.post(SEND_EMAIL, json=ours)
    await gateway.post(SEND_EMAIL, json={**ours, "subject": "Invoice"})

    assert response.json()["subject"] == "Re: Quote"
    sent = [event.data.message for event in await events(jetstream, Stream.OUTBOUND)]
    assert [message.subject for message in sent] == ["Re: Quote", "Invoice"]
    chain = ["<1@example.com>", "<2@example.com>", "<3@example.com>"]
    assert [message.references for message in sent] == [chain, chain]


async def test_an_unreadable_message_in_the_stream_is_not_replied_to(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    ours = {"from": "us@example.org", "to": "Ann@example.com", "body": "Hello"}
    await gateway.post(SENDGRID_INBOUND, content=multipart(MAIL), headers=MULTIPART)
    subject = (await jetstream.get_msg(Stream.INBOUND, 1)).subject or ""
    await jetstream.publish(subject, b'{"type": "messaging.message.received.v9"}')

    response = await gateway.post(SEND_EMAIL, json=ours)

    assert response.status_code == 202
    [event] = await events(jetstream, Stream.OUTBOUND)
    assert event.data.message.in_reply_to is None


async def test_a_refused_request_publishes_nothing(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    for path in ("messages/sms", "messages/email"):
        body, headers = {**SMS, "to": "?"}, {"Idempotency-Key": "k"}
        assert (await gateway.post(f"/api/{path}", json=body, headers=headers)).status_code == 422

    assert await count(jetstream, Stream.OUTBOUND) == 0
    assert await count(jetstream, Stream.INBOUND) == 0
    keys = await jetstream.stream_info(f"KV_{IDEMPOTENCY_BUCKET}", subjects_filter=">")
    assert set(keys.state.subjects or ()) <= {f"$KV.{IDEMPOTENCY_BUCKET}.probe"}  # which /readyz needs


async def test_a_full_stream_accepts_no_message(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(Stream.OUTBOUND)).config
    config.max_msgs = 1
    await jetstream.update_stream(config)

    responses = [await gateway.post(SEND_SMS, json=SMS) for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 503]
    assert responses[1].json()["code"] == "bus_unavailable"


async def test_an_accepted_message_is_counted_and_logged(
    gateway: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await gateway.post(SEND_SMS, json=SMS)
    await gateway.post(SEND_SMS, json={})
    metrics = (await gateway.get("/metrics")).text

    log = capsys.readouterr().out
    assert "message_accepted" in log
    assert response.json()["id"] in log
    assert 'messaging_accepted_total{channel="sms",kind="send"}' in metrics
    assert 'messaging_http_errors_total{status="422"}' in metrics
    assert 'route="/api/messages/sms",status="202"' in metrics


@pytest.mark.parametrize(
    "path", ["/api/messages/sms", "/api/messages/email", "/api/webhooks/sms", "/api/webhooks/email/status"]
)
async def test_the_documented_examples_are_accepted(gateway: httpx.AsyncClient, path: str) -> None:
    document = (await gateway.get("/openapi.json")).json()
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    for example in document["components"]["schemas"][name]["examples"]:
        response = await gateway.post(
            path, content=json.dumps(example), headers={"content-type": "application/json"}
        )
        assert response.is_success, response.text
