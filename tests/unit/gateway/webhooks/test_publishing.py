"""The events in the streams after a webhook, and the response to its provider."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from shared.bus.dead_letters import original_payload
from shared.bus.topology import Stream
from shared.events import EventType
from shared.status import Status
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import NOW
from tests.unit.gateway.in_memory import events as events_in
from tests.unit.gateway.requests import WEBHOOKS
from tests.unit.gateway.webhooks.posts import PATHS, unsigned
from tests.webhooks import (
    DELIVERED,
    FORM,
    GENERIC_EMAIL,
    GENERIC_EMAIL_STATUS,
    GENERIC_SMS,
    GENERIC_SMS_STATUS,
    JSON,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    events,
    urlencoded,
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def counted(name: str, **labels: str) -> Iterator[list[float]]:
    """Yield a list that has the increase of a counter afterwards."""
    increase: list[float] = []
    before = REGISTRY.get_sample_value(name, labels) or 0
    yield increase
    increase.append((REGISTRY.get_sample_value(name, labels) or 0) - before)


async def test_a_generic_provider_is_answered_with_our_id(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    message = await client.post(GENERIC_EMAIL, **unsigned(GENERIC_EMAIL))
    receipt = await client.post(GENERIC_SMS_STATUS, **unsigned(GENERIC_SMS_STATUS))

    [event, _] = events_in(server, Stream.INBOUND)
    id_ = event.data.message.id
    assert (message.status_code, message.json()) == (200, {"id": str(id_), "status": "received"})
    assert (receipt.status_code, receipt.json()["status"]) == (200, "delivered")


async def test_twilio_is_answered_in_twiml(client: httpx.AsyncClient) -> None:
    message = await client.post(TWILIO_MESSAGES, **unsigned(TWILIO_MESSAGES))
    callback = await client.post(TWILIO_STATUS, **unsigned(TWILIO_STATUS))

    assert (message.status_code, message.text) == (200, "<Response/>")
    assert message.headers["content-type"].startswith("text/xml")
    assert (callback.status_code, callback.content) == (204, b"")


async def test_sendgrid_is_answered_with_the_number_of_stored_events(client: httpx.AsyncClient) -> None:
    email = await client.post(SENDGRID_INBOUND, **unsigned(SENDGRID_INBOUND))
    batch = await client.post(SENDGRID_EVENTS, **unsigned(SENDGRID_EVENTS))

    assert email.status_code == 200
    assert len(email.json()["ids"]) == 1
    assert batch.json() == {"receipts": 1, "suppressions": 0, "invalid": 0}


@pytest.mark.parametrize("path", PATHS)
async def test_a_repeated_webhook_is_stored_once(
    client: httpx.AsyncClient, server: JetStream, path: str
) -> None:
    responses = [await client.post(path, **unsigned(path)) for _ in range(2)]

    assert responses[0].content == responses[1].content
    assert len(events_in(server, Stream.INBOUND)) == 1


async def test_an_inbound_message_is_stored_with_the_payload(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    payload = {**WEBHOOKS[GENERIC_SMS], "spam_score": 0.5, "headers": {"x": [None, "é"]}}
    await client.post(GENERIC_SMS, json=payload, headers={"traceparent": TRACE, "x": "y"})

    [event] = events_in(server, Stream.INBOUND)
    assert (event.type, event.source) == (EventType.MESSAGE_RECEIVED, "/providers/generic_sms")
    assert event.data.raw == payload
    assert event.data.message.created_at == NOW
    [stored] = server.messages(Stream.INBOUND)
    assert stored.subject.startswith("inbound.message.sms.")
    assert stored.headers == {"traceparent": TRACE}


async def test_a_receipt_is_stored_with_the_payload(client: httpx.AsyncClient, server: JetStream) -> None:
    payload = {"messaging_provider_id": "SM1", "status": "undelivered", "error_code": 30_003, "more": 1}
    await client.post(GENERIC_SMS_STATUS, json=payload)

    [event] = events_in(server, Stream.INBOUND)
    assert (event.type, event.data.status) == (EventType.RECEIPT_RECEIVED, Status.UNDELIVERED)
    assert (event.data.provider, event.data.provider_message_id) == ("generic_sms", "SM1")
    assert (event.data.error_code, event.data.raw) == ("30003", payload)
    [stored] = server.messages(Stream.INBOUND)
    assert stored.subject == "inbound.receipt.sms.generic_sms"


async def test_a_status_that_the_sender_already_knows_is_not_stored(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    form = urlencoded({**STATUS, "MessageStatus": "queued"})
    response = await client.post(TWILIO_STATUS, content=form, headers=FORM)

    assert response.status_code == 204
    assert server.messages(Stream.INBOUND) == []


@pytest.mark.parametrize(
    ("form", "states"),
    [
        ({"Body": "STOP"}, ["opted_out"]),
        ({"Body": "adieu", "OptOutType": "STOP"}, ["opted_out"]),
        ({"Body": "stop it", "OptOutType": ""}, []),
        ({"Body": "UNSTOP"}, ["opted_in"]),
        ({"Body": "yes"}, []),
        ({"Body": "STOP", "OptOutType": "HELP"}, []),
        ({"Body": "STOP", "OptOutType": "CUSTOM"}, ["opted_out"]),
        ({"Body": "Info"}, []),
    ],
)
async def test_a_keyword_changes_the_suppression_list(
    client: httpx.AsyncClient, server: JetStream, form: dict[str, str], states: list[str]
) -> None:
    await client.post(TWILIO_MESSAGES, content=urlencoded({**SMS, **form}), headers=FORM)

    changes = [event.data for event in events_in(server, Stream.SUPPRESSIONS)]
    assert [change.state for change in changes] == states
    assert {(change.ours, change.theirs) for change in changes} <= {(SMS["To"], SMS["From"])}
    assert len(server.messages(Stream.INBOUND)) == 1  # the message itself


async def test_an_event_of_sendgrid_may_be_an_opt_out(client: httpx.AsyncClient, server: JetStream) -> None:
    spam = {**DELIVERED, "event": "spamreport", "timestamp": int(NOW.timestamp()) + 1_000}
    response = await client.post(SENDGRID_EVENTS, content=events(spam, spam), headers=JSON)

    assert response.json() == {"receipts": 0, "suppressions": 2, "invalid": 0}
    [event] = events_in(server, Stream.SUPPRESSIONS)
    assert (event.data.theirs, event.data.ours) == ("ann@example.com", None)
    assert event.data.occurred_at == NOW.replace(microsecond=NOW.microsecond)


async def test_many_events_of_a_recipient_in_one_webhook_are_one_change(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    bounce = {**DELIVERED, "event": "dropped", "reason": "Bounced Address"}
    many = [
        {**bounce, "timestamp": 1_730_469_600 + number % 250, "sg_event_id": str(number)}
        for number in range(400)
    ]
    others = [
        {**bounce, "email": f"{number}@example.com", "sg_event_id": f"x{number}"} for number in range(3)
    ]
    response = await client.post(SENDGRID_EVENTS, content=events(*many, None, *others), headers=JSON)

    assert response.json() == {"receipts": 403, "suppressions": 403, "invalid": 1}
    changes = [event.data for event in events_in(server, Stream.SUPPRESSIONS)]
    assert Counter(change.theirs for change in changes) == Counter(
        ["ann@example.com", "0@example.com", "1@example.com", "2@example.com"]
    )
    latest = max(change.occurred_at for change in changes)
    assert latest.timestamp() == 1_730_469_600 + 249
    assert len(events_in(server, Stream.INBOUND)) == 403


async def test_a_returned_email_suppresses_its_recipient(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    receipt = {"xillio_id": "EM1", "status": "bounced"}
    assert (await client.post(GENERIC_EMAIL_STATUS, json=receipt)).status_code == 200
    assert events_in(server, Stream.SUPPRESSIONS) == []  # ingest finds the recipient
    named = {**receipt, "xillio_id": "EM2", "to": "Ann@Example.com"}
    assert (await client.post(GENERIC_EMAIL_STATUS, json=named)).status_code == 200

    assert [event.data.is_bounce for event in events_in(server, Stream.INBOUND)] == [True, False]
    [event] = events_in(server, Stream.SUPPRESSIONS)
    assert (event.data.theirs, event.data.ours, event.data.source) == ("ann@example.com", None, "bounce")


async def test_a_refusal_by_twilio_is_an_opt_out_once(client: httpx.AsyncClient, server: JetStream) -> None:
    for status in ("failed", "undelivered"):
        form = urlencoded({**STATUS, "MessageStatus": status, "ErrorCode": "21610"})
        assert (await client.post(TWILIO_STATUS, content=form, headers=FORM)).status_code == 204

    [event] = events_in(server, Stream.SUPPRESSIONS)
    assert (event.data.ours, event.data.theirs) == (STATUS["From"], STATUS["To"])
    assert event.data.source == "provider"


@pytest.mark.parametrize(
    "bad", [None, 5, {**DELIVERED, "event": None}, {**DELIVERED, "message_id": None, "sg_message_id": 5}]
)
async def test_an_invalid_event_is_a_dead_letter_and_the_others_are_stored(
    client: httpx.AsyncClient,
    server: JetStream,
    bad: Any,  # noqa: ANN401 - JSON
) -> None:
    body = events(DELIVERED, bad, {**DELIVERED, "sg_event_id": "2"})
    with counted("messaging_refused_total", route=SENDGRID_EVENTS, reason="invalid_event") as invalid:
        response = await client.post(SENDGRID_EVENTS, content=body, headers=JSON)

    assert response.json() == {"receipts": 2, "suppressions": 0, "invalid": 1}
    assert len(events_in(server, Stream.INBOUND)) == 2
    assert invalid == [1]
    [event] = events_in(server, Stream.DEADLETTER)
    assert event.data.reason == "webhook_invalid"
    assert json.loads(original_payload(event.data) or b"") == [bad]


async def test_accepted_webhooks_are_counted(client: httpx.AsyncClient) -> None:
    with (
        counted("messaging_accepted_total", channel="sms", kind="webhook") as messages,
        counted("messaging_accepted_total", channel="sms", kind="receipt") as receipts,
        counted("messaging_receipts_total", channel="sms", status="delivered") as delivered,
    ):
        await client.post(GENERIC_SMS, **unsigned(GENERIC_SMS))
        await client.post(TWILIO_STATUS, **unsigned(TWILIO_STATUS))

    assert messages == receipts == delivered == [1]
