"""Messages to groups: MMS with several recipients."""

from typing import Any

import httpx
import pytest

from shared.bus.topology import Stream
from shared.ids import conversation_key
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import calling, create_gateway, events
from tests.unit.gateway.requests import SEND_SMS
from tests.webhooks import GENERIC_SMS, JSON, TWILIO_MESSAGES, by_twilio

US, ANN, BEN, EVE = "+12016661234", "+18045551231", "+18045551232", "+18045551233"
GROUP = {"from": US, "to": [ANN, BEN], "type": "mms", "body": "Hello to both of you!"}


async def test_a_message_to_several_recipients_is_in_one_conversation(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    response = await client.post(SEND_SMS, json={**GROUP, "to": ["(804) 555-1231", BEN]})

    assert response.status_code == 202, response.text
    body = response.json()
    assert (body["to"], body["recipients"], body["type"]) == (ANN, [ANN, BEN], "mms")
    assert body["conversation_key"] == str(conversation_key("sms", [ANN, BEN, US]))
    [event] = events(server, Stream.OUTBOUND)
    assert event.data.message.participants == [US, ANN, BEN]


async def test_a_message_to_one_recipient_lists_that_one(client: httpx.AsyncClient) -> None:
    response = await client.post(SEND_SMS, json={**GROUP, "to": ANN})

    assert (response.json()["to"], response.json()["recipients"]) == (ANN, [ANN])


@pytest.mark.parametrize("type_", ["sms", "mms"])
async def test_a_list_of_one_recipient_is_no_group(client: httpx.AsyncClient, type_: str) -> None:
    lists = [await client.post(SEND_SMS, json={**GROUP, "type": type_, "to": [ANN, US, ANN]})]
    lists.append(await client.post(SEND_SMS, json={**GROUP, "type": type_, "to": ANN}))

    first, second = [response.json() for response in lists]
    assert first["conversation_key"] == second["conversation_key"]
    assert first["recipients"] == [ANN]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"type": "sms"}, ("type", "must be mms for a group of recipients")),
        ({"to": [ANN, "+1"]}, ("to", "recipient 2 is not a valid phone number")),
        ({"from": "ACME"}, ("type", "cannot be mms from an alphanumeric sender id, which can only send sms")),
    ],
)
async def test_a_group_has_to_be_reachable_by_mms(
    client: httpx.AsyncClient, fields: dict[str, Any], fault: tuple[str, str]
) -> None:
    response = await client.post(SEND_SMS, json={**GROUP, **fields})

    assert response.status_code == 422
    assert [(each["field"], each["detail"]) for each in response.json()["errors"]] == [fault]


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"sms_providers": "twilio"}, 422),
        ({"sms_providers": "twilio,generic_sms"}, 202),
        ({"sms_providers": "twilio", "routes": f"{US}=generic_sms"}, 202),
        ({"sms_providers": "generic_sms", "routes": f"{US}=twilio"}, 422),
    ],
)
async def test_a_group_needs_a_provider_that_can_send_to_it(settings: dict[str, Any], status: int) -> None:
    async with calling(create_gateway(**settings)) as client:
        responses = [await client.post(SEND_SMS, json={**GROUP, "to": to}) for to in ([ANN, BEN], ANN)]

    assert [response.status_code for response in responses] == [status, 202]


async def test_an_idempotency_key_belongs_to_one_group(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "a-key"}
    bodies = [GROUP, GROUP, {**GROUP, "to": [ANN, EVE]}, {**GROUP, "to": ANN}]
    responses = [await client.post(SEND_SMS, json=body, headers=key) for body in bodies]

    assert [response.status_code for response in responses] == [202, 202, 422, 422]
    assert responses[0].json()["id"] == responses[1].json()["id"]


@pytest.mark.parametrize("to", [[US, BEN], [BEN, US]])
async def test_a_stop_in_a_group_suppresses_its_author_alone(
    client: httpx.AsyncClient, server: JetStream, to: list[str]
) -> None:
    stop = {"from": ANN, "to": to, "type": "mms", "messaging_provider_id": "stop-1", "body": "STOP"}
    assert (await client.post(GENERIC_SMS, json=stop)).status_code == 200

    for recipients, status in (([ANN, BEN], 409), ([BEN, ANN], 409), (ANN, 409), ([BEN, EVE], 202)):
        response = await client.post(SEND_SMS, json={**GROUP, "to": recipients})
        assert response.status_code == status
    refused = (await client.post(SEND_SMS, json={**GROUP, "to": [BEN, ANN]})).json()
    assert refused["code"] == "recipient_opted_out"
    assert refused["detail"].startswith(f"The recipient {ANN} opted out of messages from {US}")
    assert len(server.messages(Stream.OUTBOUND)) == 1


async def test_messages_of_all_members_are_in_the_conversation_of_ours(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    ours = (await client.post(SEND_SMS, json={**GROUP, "to": [ANN, BEN]})).json()
    by_ann = {"from": ANN, "to": [US, BEN], "messaging_provider_id": "g-1", "body": "Hello all"}
    await client.post(GENERIC_SMS, json=by_ann)
    form = {
        "MessageSid": f"MM{1:032}",
        "AccountSid": f"AC{2:032}",
        "From": BEN,
        "To": US,
        "OtherRecipients0": ANN,
        "Body": "Hi",
        "NumMedia": "0",
    }
    posted = by_twilio(TWILIO_MESSAGES, form)
    await client.post(TWILIO_MESSAGES, content=posted["content"], headers={**posted["headers"]})

    found = [event.data.message for event in events(server, Stream.INBOUND)]
    assert [str(message.conversation_key) for message in found] == [ours["conversation_key"]] * 2
    assert [message.from_ for message in found] == [ANN, BEN]


async def test_a_group_of_anything_is_kept(client: httpx.AsyncClient, server: JetStream) -> None:
    """A list of recipients that nobody could send to is a dead letter at worst."""
    for number, to in enumerate(
        [[], [None], [{}, []], [""], {"a": 1}, [US, {}], [US, None, "x@y"], [1] * 99]
    ):
        payload = {"from": ANN, "to": to, "messaging_provider_id": f"odd-{number}", "body": "Hello"}
        response = await client.post(GENERIC_SMS, json=payload, headers=JSON)
        assert response.status_code in {200, 202}
    stored = [*server.messages(Stream.INBOUND), *server.messages(Stream.DEADLETTER)]
    assert len(stored) == 8
