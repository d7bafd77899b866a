"""What clients and providers bring ends up in the streams, once."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from nats.js import JetStreamContext

from services.gateway.messages.idempotency import Memory, fingerprint
from services.gateway.schemas import SmsSend
from shared.bus.key_value import Bucket
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import IDEMPOTENCY_BUCKET, Stream
from shared.channels import Direction, MessageType
from shared.events import Event, MessageAccepted, MessageReceived, ReceiptReceived, decode
from shared.ids import idempotent_message_id, inbound_message_id
from shared.lifecycle import Status
from tests.integration.gateway.conftest import StartGateway
from tests.webhooks import MAIL, MULTIPART, SENDGRID_INBOUND, multipart

pytestmark = pytest.mark.integration

SMS = {
    "from": "+12016661234",
    "to": "+18045551234",
    "type": "sms",
    "body": "text message",
    "attachments": None,
    "timestamp": "2024-11-01T14:00:00Z",
}
EMAIL = {
    "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
    "to": "[contact@gmail.com](mailto:contact@gmail.com)",
    "body": "text message with or without html",
    "attachments": ["attachment-url"],
    "timestamp": "2024-11-01T14:00:00Z",
}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOWHERE = "postgresql+asyncpg://user:password@127.0.0.1:1/nowhere"


async def published(jetstream: JetStreamContext, stream: Stream) -> list[Event]:
    state = (await jetstream.stream_info(stream)).state
    messages = [await jetstream.get_msg(stream, number) for number in range(1, state.messages + 1)]
    return [decode(message.data or b"") for message in messages]


async def test_an_sms_is_accepted_and_published(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    response = await gateway.post("/api/messages/sms", json=SMS, headers={"traceparent": TRACE})

    body = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/api/messages/{body['id']}"
    created_at = body.pop("created_at")
    assert created_at.endswith("Z")
    assert body == {
        "id": body["id"],
        "conversation_id": None,
        "conversation_key": "f5233891-5cc0-509c-a9c8-54c0eb665f85",
        "direction": "outbound",
        "type": "sms",
        "from": "+12016661234",
        "to": "+18045551234",
        "subject": None,
        "body": "text message",
        "attachments": [],
        "timestamp": "2024-11-01T14:00:00Z",
        "status": "accepted",
        "provider": None,
        "provider_message_id": None,
        "error": None,
        "send_at": None,
        "segments": 1,
        "encoding": "GSM-7",
    }
    [event] = await published(jetstream, Stream.OUTBOUND)
    assert isinstance(event, MessageAccepted)
    assert str(event.data.message.id) == body["id"]
    assert event.data.generation == 0
    assert event.data.expires_at == datetime.fromisoformat(created_at) + timedelta(hours=4)
    raw = await jetstream.get_msg(Stream.OUTBOUND, 1)
    assert (raw.subject or "").startswith("outbound.sms.")
    assert raw.headers == {"Nats-Msg-Id": str(event.id), "traceparent": TRACE}


async def test_an_email_as_the_specification_has_it(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    response = await gateway.post("/api/messages/email", json={**EMAIL, "subject": "Hello"})

    assert response.status_code == 202
    assert response.json()["from"] == "user@usehatchapp.com"
    [event] = await published(jetstream, Stream.OUTBOUND)
    assert isinstance(event, MessageAccepted)
    assert event.data.message.type is MessageType.EMAIL
    assert event.data.message.subject == "Hello"
    assert event.data.message.attachments == ["attachment-url"]


async def test_the_same_request_without_a_key_is_another_message(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    responses = [await gateway.post("/api/messages/sms", json=SMS) for _ in range(2)]

    assert len({response.json()["id"] for response in responses}) == 2
    assert len(await published(jetstream, Stream.OUTBOUND)) == 2


@pytest.mark.parametrize("payload", [SMS, {key: SMS[key] for key in SMS if key != "timestamp"}])
async def test_requests_with_one_idempotency_key_are_one_message(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext, payload: dict[str, Any]
) -> None:
    first, *others = [
        await gateway.post("/api/messages/sms", json=payload, headers={"Idempotency-Key": key})
        for key in ("a-key", '"a-key"', "a-key")
    ]

    assert first.status_code == 202
    assert first.json()["id"] == str(idempotent_message_id("anonymous", "a-key"))
    assert [other.content for other in others] == [first.content] * 2
    assert [other.headers["location"] for other in others] == [first.headers["location"]] * 2
    assert len(await published(jetstream, Stream.OUTBOUND)) == 1


async def test_equal_requests_at_the_same_moment_get_one_answer(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    payload = {key: SMS[key] for key in SMS if key != "timestamp"}
    responses = await asyncio.gather(
        *(
            gateway.post("/api/messages/sms", json=payload, headers={"Idempotency-Key": "a-key"})
            for _ in range(20)
        )
    )

    assert {response.status_code for response in responses} == {202}
    assert len({response.content for response in responses}) == 1
    assert len(await published(jetstream, Stream.OUTBOUND)) == 1


async def test_a_key_is_good_for_one_message_only(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    headers = {"Idempotency-Key": "a-key"}
    await gateway.post("/api/messages/sms", json=SMS, headers=headers)
    others = [
        await gateway.post("/api/messages/sms", json={**SMS, "body": "another"}, headers=headers),
        await gateway.post("/api/messages/email", json=EMAIL, headers=headers),
    ]

    assert [other.status_code for other in others] == [422, 422]
    assert [other.json()["errors"][0]["field"] for other in others] == ["Idempotency-Key"] * 2
    assert len(await published(jetstream, Stream.OUTBOUND)) == 1


async def test_a_request_that_died_before_it_published_is_made_good_by_its_repetition(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext, bus: Bus, publisher: Publisher
) -> None:
    answered = await gateway.post("/api/messages/sms", json=SMS, headers={"Idempotency-Key": "a-key"})
    [event] = await published(jetstream, Stream.OUTBOUND)
    assert isinstance(event, MessageAccepted)
    # Another message, of which only the record was written.
    id_ = idempotent_message_id("anonymous", "b-key")
    message = event.data.message.model_copy(update={"id": id_})
    lost = MessageAccepted.of(event.data.model_copy(update={"message": message}), time=event.time)
    send = SmsSend.model_validate(SMS, context={"default_region": "US"})
    await Memory(Bucket(bus, publisher, IDEMPOTENCY_BUCKET)).settle(lost, fingerprint(send, message))

    response = await gateway.post("/api/messages/sms", json=SMS, headers={"Idempotency-Key": "b-key"})

    assert response.json() == {**answered.json(), "id": str(id_)}
    [_, made_good] = await published(jetstream, Stream.OUTBOUND)
    assert isinstance(made_good, MessageAccepted)
    assert (made_good.id, made_good.data.message) == (lost.id, message)
    # Its time to be sent begins with its acceptance, which may be long after the first try.
    assert made_good.data.expires_at > lost.data.expires_at


async def test_clients_do_not_share_their_keys(
    start_gateway: StartGateway, nats_url: str, jetstream: JetStreamContext
) -> None:
    async with start_gateway(
        nats_url=nats_url, database_url=NOWHERE, api_keys="a:one,a:two,b:three"
    ) as gateway:
        ids = []
        for key in ("one", "two", "three"):
            headers = {"Idempotency-Key": "a-key", "Authorization": f"Bearer {key}"}
            ids.append((await gateway.post("/api/messages/sms", json=SMS, headers=headers)).json()["id"])

    assert ids[0] == ids[1] != ids[2]
    assert len(await published(jetstream, Stream.OUTBOUND)) == 2


async def test_an_inbound_message_is_published_with_what_the_provider_wrote(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    payload = {**EMAIL, "xillio_id": "message-2", "spam_score": 0.5, "headers": {"x": [None, "é"]}}
    responses = [await gateway.post("/api/webhooks/email", json=payload) for _ in range(2)]

    id_ = inbound_message_id("generic_email", "message-2")
    assert [response.status_code for response in responses] == [200, 200]
    assert [response.json() for response in responses] == [{"id": str(id_), "status": "received"}] * 2
    [event] = await published(jetstream, Stream.INBOUND)
    assert isinstance(event, MessageReceived)
    assert event.data.raw == payload
    message = event.data.message
    assert (message.id, message.direction, message.from_) == (id_, Direction.INBOUND, "user@usehatchapp.com")
    assert (message.provider, message.provider_message_id) == ("generic_email", "message-2")


async def test_an_email_answers_the_newest_one_in_its_conversation(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    ours = {"from": "us@example.org", "to": "Ann@example.com", "body": "Hello"}
    key = {"Idempotency-Key": "before"}
    before = await gateway.post("/api/messages/email", json=ours, headers=key)
    for number in (1, 2):
        mail = {**MAIL, "headers": f"Message-ID: <{number}@example.com>"}
        await gateway.post(SENDGRID_INBOUND, content=multipart(mail), headers=MULTIPART)
    again = await gateway.post("/api/messages/email", json=ours, headers=key)
    await gateway.post("/api/messages/email", json=ours)

    assert again.json() == before.json()
    sent = [json.loads((await jetstream.get_msg(Stream.OUTBOUND, number)).data or b"") for number in (1, 2)]
    assert [event["data"]["message"]["in_reply_to"] for event in sent] == [None, "<2@example.com>"]


async def test_an_inbound_body_may_be_as_long_as_a_request(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    payload = {**SMS, "messaging_provider_id": "1", "body": "x" * 250_000}
    response = await gateway.post("/api/webhooks/sms", json=payload)

    assert response.status_code == 200
    assert len(await published(jetstream, Stream.INBOUND)) == 1


async def test_a_receipt_is_published_once(gateway: httpx.AsyncClient, jetstream: JetStreamContext) -> None:
    payload = {"messaging_provider_id": "SM1", "status": "undelivered", "error_code": 30_003, "more": 1}
    for _ in range(2):
        response = await gateway.post("/api/webhooks/sms/status", json=payload)
        assert response.status_code == 200
        assert response.json()["status"] == "undelivered"

    [event] = await published(jetstream, Stream.INBOUND)
    assert isinstance(event, ReceiptReceived)
    assert event.data.status is Status.UNDELIVERED
    assert (event.data.provider, event.data.provider_message_id) == ("generic_sms", "SM1")
    assert (event.data.error_code, event.data.raw) == ("30003", payload)


async def test_a_refused_request_publishes_nothing(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    for path in ("messages/sms", "messages/email", "webhooks/sms", "webhooks/sms/status"):
        response = await gateway.post(
            f"/api/{path}", json={**SMS, "to": "?"}, headers={"Idempotency-Key": "k"}
        )
        assert response.status_code == 422

    assert await published(jetstream, Stream.OUTBOUND) == []
    assert await published(jetstream, Stream.INBOUND) == []
    assert (await jetstream.stream_info(f"KV_{IDEMPOTENCY_BUCKET}")).state.messages == 0


async def test_without_nats_nothing_is_accepted_and_one_is_told_at_once(start_gateway: StartGateway) -> None:
    async with start_gateway(ready=False, nats_url="nats://127.0.0.1:1", database_url=NOWHERE) as gateway:
        responses = [
            await gateway.post("/api/messages/sms", json=SMS),
            await gateway.post("/api/messages/sms", json=SMS, headers={"Idempotency-Key": "a-key"}),
            await gateway.post("/api/webhooks/sms", json={**SMS, "messaging_provider_id": "1"}),
        ]
        readiness = await gateway.get("/readyz")
        health = await gateway.get("/healthz")

    for response in responses:
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["detail"].startswith("The message bus does not answer")
    assert readiness.status_code == 503
    assert health.status_code == 200


async def test_a_full_stream_is_no_place_for_a_message(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(Stream.OUTBOUND)).config
    config.max_msgs = 1
    await jetstream.update_stream(config)

    responses = [await gateway.post("/api/messages/sms", json=SMS) for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 503]


async def test_what_was_accepted_is_counted_and_logged(
    gateway: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await gateway.post("/api/messages/sms", json=SMS)
    await gateway.post("/api/messages/sms", json={})
    metrics = (await gateway.get("/metrics")).text

    assert response.json()["id"] in capsys.readouterr().out
    assert 'messaging_accepted_total{channel="sms",kind="send"}' in metrics
    assert 'messaging_refused_total{status="422"}' in metrics
    assert 'route="/api/messages/sms",status="202"' in metrics


async def test_the_document_has_an_example_that_works(gateway: httpx.AsyncClient) -> None:
    document = (await gateway.get("/openapi.json")).json()
    for path in (
        "/api/messages/sms",
        "/api/messages/email",
        "/api/webhooks/sms",
        "/api/webhooks/email/status",
    ):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        for example in document["components"]["schemas"][name]["examples"]:
            response = await gateway.post(
                path, content=json.dumps(example), headers={"content-type": "application/json"}
            )
            assert response.is_success
