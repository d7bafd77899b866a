"""Conversations, as clients and providers see them."""

import asyncio
from typing import Any

from tests.e2e.stack import Stack
from tests.waiting import eventually

A, B = "+12016661234", "+18045551234"
WRITTEN = "2024-11-01T14:00:00Z"
EMAIL_A = "[user@usehatchapp.com](mailto:user@usehatchapp.com)"
EMAIL_B = "[contact@gmail.com](mailto:contact@gmail.com)"


async def test_all_messages_between_two_numbers_are_one_conversation(stack: Stack) -> None:
    sms = {"body": "text message", "timestamp": WRITTEN}
    mms = {**sms, "type": "mms", "attachments": ["attachment-url"]}
    sent = await stack.send(**{"from": A, "to": B, **sms})
    await stack.send(**{"from": B, "to": "(201) 666-1234", **mms, "body": ""})
    inbound = {"from": B, "to": A, "attachments": None, "type": "sms", "messaging_provider_id": "message-1"}
    assert (await stack.post("/api/webhooks/sms", {**sms, **inbound})).status_code == 200
    inbound = {"from": A, "to": B, "messaging_provider_id": "message-2"}
    assert (await stack.post("/api/webhooks/sms", {**mms, **inbound})).status_code == 200

    found = await stack.messages_of(sent["conversation_key"], 4)
    assert {message["conversation_id"] for message in found} == {found[0]["conversation_id"]}
    assert sorted(message["type"] for message in found) == ["mms", "mms", "sms", "sms"]
    [conversation] = await stack.items("/api/conversations")
    assert conversation["participants"] == [A, B]
    assert conversation["message_count"] == 4


async def test_emails_from_the_specification_are_accepted(stack: Stack) -> None:
    payload = {
        "from": EMAIL_A,
        "to": EMAIL_B,
        "body": "text message with or without html",
        "attachments": ["attachment-url"],
        "timestamp": WRITTEN,
    }
    response = await stack.post("/api/messages/email", payload)
    assert response.status_code == 202, response.text
    message = response.json()
    assert response.headers["Location"] == f"/api/messages/{message['id']}"
    inbound = {
        "from": EMAIL_B,
        "to": EMAIL_A,
        "xillio_id": "message-2",
        "body": "<html><body>html is <b>allowed</b> here </body></html>",
        "attachments": [],
        "timestamp": WRITTEN,
    }
    assert (await stack.post("/api/webhooks/email", inbound)).status_code == 200
    found = await stack.messages_of(message["conversation_key"], 2)
    assert [each["from"] for each in found] == ["user@usehatchapp.com", "contact@gmail.com"]
    await stack.message_becomes(message["id"], "sent")
    [delivered] = await stack.email.messages()
    assert delivered["payload"]["to"] == "contact@gmail.com"


async def test_fifty_simultaneous_first_messages_create_one_conversation(stack: Stack) -> None:
    sent = await asyncio.gather(*(stack.send(body=f"number {number}") for number in range(50)))
    found = await stack.messages_of(sent[0]["conversation_key"], 50)
    assert {message["id"] for message in found} == {message["id"] for message in sent}
    assert len(await stack.items("/api/conversations")) == 1


async def test_ten_simultaneous_deliveries_of_a_webhook_are_one_message(stack: Stack) -> None:
    payload = {"from": B, "to": A, "type": "sms", "messaging_provider_id": "m-1", "body": "once"}
    responses = await asyncio.gather(*(stack.post("/api/webhooks/sms", payload) for _ in range(10)))
    assert [response.status_code for response in responses] == [200] * 10
    [message_id] = {response.json()["id"] for response in responses}
    await stack.message_becomes(message_id, "received")
    [conversation] = await stack.items("/api/conversations")
    assert conversation["message_count"] == 1


async def test_receipts_and_inbound_messages_of_the_mock_provider_are_stored(stack: Stack) -> None:
    sent = await stack.send()
    sent = await stack.message_becomes(sent["id"], "sent")
    response = await stack.sms.receipt(provider_message_id=sent["provider_message_id"], status="delivered")
    assert response.json()["status"] == 200
    delivered = await stack.message_becomes(sent["id"], "delivered")
    assert [step["status"] for step in delivered["history"]] == ["accepted", "sent", "delivered"]

    response = await stack.sms.inbound(**{"from": B, "to": A, "body": "a reply"})
    assert response.json()["status"] == 200
    found = await stack.messages_of(sent["conversation_key"], 2)
    assert found[-1]["body"] == "a reply"


UNUSUAL: list[dict[str, Any]] = [
    {"timestamp": "2024-11-01T16:00:00+02:00"},
    {"timestamp": None},
    {"attachments": None},
    {"attachments": []},
    {"body": "é" * 1_600},
    {"body": "👩‍👩‍👧‍👦 family"},
    {"from": "(201) 666-1234"},
    {"from": B, "to": B},
]


async def test_unusual_but_valid_messages_are_stored(stack: Stack) -> None:
    for fields in UNUSUAL:
        sent = await stack.send(**fields)
        found = await stack.message_becomes(sent["id"], "sent")
        assert found["body"] == fields.get("body", "Hello")
        assert found["attachments"] == []
        if "timestamp" in fields:
            assert found["timestamp"] == (WRITTEN if fields["timestamp"] else found["created_at"])
    conversations = await stack.items("/api/conversations", participant=B)
    assert sorted(each["participants"] for each in conversations) == [[A, B], [B]]


async def test_requests_with_the_same_idempotency_key_are_one_message(stack: Stack) -> None:
    payload = {"from": A, "to": B, "type": "sms", "body": "once"}
    key = {"Idempotency-Key": '"order-17"'}
    responses = await asyncio.gather(*(stack.post("/api/messages/sms", payload, **key) for _ in range(10)))
    assert {response.status_code for response in responses} == {202}
    [text] = {response.text for response in responses}
    other = await stack.post("/api/messages/sms", {**payload, "body": "another"}, **key)
    assert other.status_code == 422
    await stack.message_becomes(responses[0].json()["id"], "sent")
    assert text == (await stack.post("/api/messages/sms", payload, **key)).text
    assert len(await stack.sms.messages()) == 1


async def test_conversations_are_listed_once_while_others_get_messages(stack: Stack) -> None:
    numbers = [f"+1201666{number:04}" for number in range(20)]
    for number in numbers:
        await stack.send(to=number)

    async def all_are_stored() -> bool:
        return len(await stack.items("/api/conversations")) == 20

    await eventually(all_are_stored)
    listed: list[str] = []
    moved: list[str] = []
    async for page in stack.pages("/api/conversations", limit=3):
        listed += [address for conversation in page for address in conversation["participants"]]
        # Three conversations move to the front: one that is not listed yet, one that is, and a new one.
        not_listed = [number for number in numbers if number not in (*listed, *moved)]
        moved += not_listed[:1]
        for number in (*not_listed[:1], numbers[-1], f"+1202555{len(listed):04}"):
            sent = await stack.send(to=number)
            await stack.message_becomes(sent["id"], "accepted", "sent")

    assert sorted(address for address in listed if address in numbers) == sorted({*numbers} - {*moved})
    listed_again = await stack.items("/api/conversations")
    assert {*moved} <= {address for each in listed_again for address in each["participants"]}


async def test_a_participant_is_found_with_a_bare_plus(stack: Stack) -> None:
    sent = await stack.send()
    await stack.messages_of(sent["conversation_key"], 1)
    for query in ("participant=+18045551234", "participant=%2B18045551234", "participant=(804)+555-1234"):
        response = await stack.client.get(f"{stack.gateway_url}/api/conversations?{query}")
        assert len(response.json()["items"]) == 1, query
