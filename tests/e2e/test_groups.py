"""A group of three, from the API to the mock provider and back."""

from tests.e2e.stack import Stack

US, ANN, BEN = "+12016661234", "+18045551231", "+18045551232"


async def test_a_group_is_one_conversation_of_all_its_members(stack: Stack) -> None:
    sent = await stack.send(**{"from": US, "to": [ANN, BEN], "type": "mms", "body": "Hello to both of you!"})
    sent = await stack.message_becomes(sent["id"], "sent")
    [accepted] = await stack.sms.messages()
    assert (accepted["payload"]["to"], accepted["payload"]["type"]) == ([ANN, BEN], "mms")
    await stack.sms.receipt(provider_message_id=sent["provider_message_id"], status="delivered")
    await stack.message_becomes(sent["id"], "delivered")

    response = await stack.sms.inbound(**{"from": BEN, "to": [US, ANN], "body": "Hello everybody"})
    assert response.json()["status"] == 200
    [first, reply] = await stack.messages_of(sent["conversation_key"], 2)
    assert (first["to"], first["recipients"]) == (ANN, [ANN, BEN])
    assert (reply["from"], reply["recipients"], reply["type"]) == (BEN, [US, ANN], "mms")
    [conversation] = await stack.items("/api/conversations", participant=ANN)
    assert conversation["participants"] == [US, ANN, BEN]

    await stack.sms.inbound(**{"from": BEN, "to": [US, ANN], "body": "STOP"})
    group = {"from": US, "to": [ANN, BEN], "type": "mms", "body": "Are you there?"}
    refused = await stack.post("/api/messages/sms", group)
    assert (refused.status_code, refused.json()["code"]) == (409, "recipient_opted_out")
    await stack.send(to=ANN)
