"""Requests that depend on a value that cannot be read back are refused, and others are not affected."""

import httpx
import pytest

from services.gateway.http.errors import ConflictError
from services.gateway.messages.schemas import MessageWithHistory
from shared.bus.publisher import Outgoing
from shared.bus.topology import DELIVERIES_BUCKET, IDEMPOTENCY_BUCKET, Stream, suppression_subject
from shared.channels import Channel
from shared.ids import request_id, suppression_key
from tests.jetstream import JetStream
from tests.messages import ALICE, BOB
from tests.unit.gateway.in_memory import create_services
from tests.unit.gateway.requests import SEND_SMS, SMS

UNREADABLE = [b"", b"\xff", b"null", b"{}", b'{"type":"messaging.thing.happened.v9"}', b"[" * 5_000]


def store(server: JetStream, stream: str, subject: str, payload: bytes) -> None:
    server.store(stream, Outgoing(subject, None, payload))


@pytest.mark.parametrize("payload", UNREADABLE)
async def test_the_record_of_an_idempotency_key(
    client: httpx.AsyncClient, server: JetStream, payload: bytes
) -> None:
    key = f"$KV.{IDEMPOTENCY_BUCKET}.{request_id('anonymous', 'a')}"
    first = await client.post(SEND_SMS, json=SMS, headers={"Idempotency-Key": "a"})
    assert first.status_code == 202
    assert server.last(f"KV_{IDEMPOTENCY_BUCKET}", key)

    store(server, f"KV_{IDEMPOTENCY_BUCKET}", key, payload)
    again = await client.post(SEND_SMS, json=SMS, headers={"Idempotency-Key": "a"})
    assert (again.status_code, again.json()["code"]) == (409, "outcome_unknown")
    assert len(server.messages(Stream.OUTBOUND)) == 1

    other = await client.post(SEND_SMS, json=SMS, headers={"Idempotency-Key": "b"})
    assert other.status_code == 202


@pytest.mark.parametrize("payload", UNREADABLE)
async def test_a_suppression(client: httpx.AsyncClient, server: JetStream, payload: bytes) -> None:
    pair = suppression_key(Channel.SMS, ALICE, BOB)
    store(server, Stream.SUPPRESSIONS, suppression_subject(Channel.SMS, pair), payload)

    response = await client.post(SEND_SMS, json=SMS)
    assert (response.status_code, response.json()["code"]) == (409, "recipient_opted_out")
    assert "unreadable" in response.json()["detail"]

    response = await client.post(SEND_SMS, json={**SMS, "to": "+18045550000"})
    assert response.status_code == 202


@pytest.mark.parametrize("payload", UNREADABLE)
async def test_the_ledger_entry_of_a_message_that_is_to_be_cancelled(
    client: httpx.AsyncClient, server: JetStream, payload: bytes
) -> None:
    accepted = await client.post(SEND_SMS, json=SMS)
    message = MessageWithHistory.model_validate({**accepted.json(), "history": []})
    store(server, f"KV_{DELIVERIES_BUCKET}", f"$KV.{DELIVERIES_BUCKET}.{message.id}", payload)

    with pytest.raises(ConflictError) as caught:
        await create_services(server).cancellation_service.cancel(message)
    assert caught.value.code == "outcome_unknown"
    assert server.messages(Stream.EVENTS) == []
