"""Recipients who have opted out are not sent any more messages."""

import asyncio
from datetime import datetime
from time import time
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import Stream
from shared.channels import Channel
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from shared.unsubscribe import Subscription
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.rows import Rows, minutes
from tests.integration.gateway.streams import count
from tests.messages import ALICE, BOB, now
from tests.webhooks import SENDGRID_EVENTS, SMS, TWILIO_MESSAGES

pytestmark = pytest.mark.integration

SECRET = "a secret of some length"
LINK = "/unsubscribe/" + Subscription(Channel.EMAIL, "ann@example.com", "ben@example.org").sign(SECRET)
TO_BOB = {"from": ALICE, "to": BOB, "type": "sms", "body": "Hello"}
TO_BEN = {"from": "Ann@example.com", "to": "Ben@example.org", "body": "Hello"}
OTHER_SENDER = "+12015550000"


@pytest.mark.parametrize("field", ["cc", "bcc"])
async def test_a_copy_to_a_recipient_who_has_opted_out_is_refused(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext, field: str
) -> None:
    await gateway.put("/api/suppressions/ben@example.org", json={"reason": "asked by phone"})
    payload = {"from": "ann@example.com", "to": "cy@example.com", "body": "Hello"}

    refused = await gateway.post("/api/messages/email", json={**payload, field: ["Ben <Ben@example.org>"]})
    accepted = await gateway.post("/api/messages/email", json={**payload, field: ["dee@example.org"]})

    assert (refused.status_code, refused.json()["code"]) == (409, "recipient_opted_out")
    assert refused.json()["detail"].startswith(
        "The recipient Ben@example.org opted out of messages from all "
    )
    assert accepted.status_code == 202
    assert await count(jetstream, Stream.OUTBOUND) == 1


async def receive(gateway: httpx.AsyncClient, body: str, **fields: Any) -> None:  # noqa: ANN401 - any field
    """Post a text from Bob to Alice."""
    payload = {"from": BOB, "to": ALICE, "type": "sms", "messaging_provider_id": body, "body": body, **fields}
    response = await gateway.post("/api/webhooks/sms", json=payload)
    assert response.status_code == 200, response.text


async def send(
    gateway: httpx.AsyncClient, payload: dict[str, str] = TO_BOB, *, key: str | None = None
) -> httpx.Response:
    channel = "email" if "@" in payload["to"] else "sms"
    headers = {"Idempotency-Key": key} if key else {}
    return await gateway.post(f"/api/messages/{channel}", json=payload, headers=headers)


async def status_of(gateway: httpx.AsyncClient, payload: dict[str, str] = TO_BOB) -> int:
    return (await send(gateway, payload)).status_code


async def test_a_keyword_takes_effect_before_its_webhook_is_answered(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    for _ in range(3):
        await receive(gateway, "Stop.")
        refused = await send(gateway)
        assert (refused.status_code, refused.json()["code"]) == (409, "recipient_opted_out")
        detail = refused.json()["detail"]
        assert detail.startswith(f"The recipient opted out of messages from {ALICE} on {now():%Y-}")
        assert detail.endswith("(keyword)")
        assert await status_of(gateway, {**TO_BOB, "from": OTHER_SENDER}) == 202
    await receive(gateway, "help")
    assert await status_of(gateway) == 409
    await receive(gateway, "yes")
    assert await status_of(gateway) == 202

    assert await count(jetstream, Stream.SUPPRESSIONS) == 2
    assert await count(jetstream, Stream.INBOUND) == 3


async def test_a_repeated_webhook_does_not_opt_out_again(gateway: httpx.AsyncClient) -> None:
    await receive(gateway, "stop")
    await receive(gateway, "start")
    await receive(gateway, "stop")

    assert await status_of(gateway) == 202


@pytest.mark.parametrize("written_at", ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
async def test_the_text_that_arrives_last_counts_whatever_its_time(
    gateway: httpx.AsyncClient, written_at: str
) -> None:
    await receive(gateway, "start")
    await receive(gateway, "stop", timestamp=written_at)
    assert await status_of(gateway) == 409
    await receive(gateway, "unstop", timestamp=written_at)
    assert await status_of(gateway) == 202

    await gateway.put(f"/api/suppressions/{BOB}?sender={quote(ALICE)}", json={"reason": "on the phone"})
    await gateway.delete(f"/api/suppressions/{BOB}?sender={quote(ALICE)}")
    await receive(gateway, "end", timestamp=written_at)
    assert await status_of(gateway) == 409


async def test_a_word_of_the_settings_opts_out(
    start_gateway: StartGateway, nats_url: str, database_url: str
) -> None:
    settings = {"opt_out_keywords": "arr\u00eat, stopp", "opt_in_keywords": "encore"}
    async with start_gateway(nats_url=nats_url, database_url=database_url, **settings) as gateway:
        await receive(gateway, "Arr\u00eat !")
        assert await status_of(gateway) == 409
        await receive(gateway, "encore")
        assert await status_of(gateway) == 202


async def test_the_opt_outs_of_a_messaging_service_concern_all_its_numbers(
    start_gateway: StartGateway, nats_url: str, database_url: str
) -> None:
    service = "MG" + "5" * 32
    from_other = {**TO_BOB, "from": OTHER_SENDER}
    settings = {"twilio_messaging_service_sid": service}
    async with start_gateway(nats_url=nats_url, database_url=database_url, **settings) as gateway:

        async def receive_from_twilio(number: int, word: str) -> None:
            form = {**SMS, "MessageSid": f"SM{number:032}", "From": BOB, "To": ALICE, "Body": word}
            posted = {**form, "OptOutType": word, "MessagingServiceSid": service}
            assert (await gateway.post(TWILIO_MESSAGES, data=posted)).is_success

        await receive_from_twilio(1, "STOP")
        refused = await send(gateway, from_other)
        assert refused.status_code == 409
        assert f"twilio:{service}" in refused.json()["detail"]
        assert await status_of(gateway) == 409
        await receive_from_twilio(2, "START")
        assert await status_of(gateway, from_other) == 202
        assert await status_of(gateway) == 202

        await receive_from_twilio(3, "STOP")
        lifted = await gateway.delete(f"/api/suppressions/{BOB}?sender=twilio:{service}")
        assert lifted.status_code == 204
        assert await status_of(gateway, from_other) == 202
        assert await status_of(gateway) == 409


async def post_events(gateway: httpx.AsyncClient, **event: object) -> None:
    events = [{"email": "ben@example.org", "sg_message_id": "x.y", "timestamp": time(), **event}]
    assert (await gateway.post(SENDGRID_EVENTS, json=events)).status_code == 200


@pytest.mark.parametrize("event", ["spamreport", "unsubscribe", "bounce", "group_unsubscribe"])
@pytest.mark.parametrize("group", [None, 7])
async def test_a_resubscription_to_a_group_lifts_only_the_opt_out_from_it(
    start_gateway: StartGateway, nats_url: str, database_url: str, event: str, group: int | None
) -> None:
    settings = {"sendgrid_unsubscribe_group": group} if group else {}
    is_of_group = event == "group_unsubscribe"
    async with start_gateway(nats_url=nats_url, database_url=database_url, **settings) as gateway:
        await post_events(gateway, event="group_unsubscribe", asm_group_id=8)
        assert await status_of(gateway, TO_BEN) == 202
        await post_events(gateway, event=event, asm_group_id=7)
        assert await status_of(gateway, TO_BEN) == (202 if is_of_group and group is None else 409)
        await post_events(gateway, event="group_resubscribe", asm_group_id=8)
        assert await status_of(gateway, TO_BEN) == (202 if is_of_group and group is None else 409)
        await post_events(gateway, event="group_resubscribe", asm_group_id=7)
        assert await status_of(gateway, TO_BEN) == (202 if is_of_group else 409)


async def test_the_repetition_of_an_earlier_request_gets_the_earlier_response(
    gateway: httpx.AsyncClient,
) -> None:
    first = await send(gateway, key="one")
    await receive(gateway, "stop")
    again = await send(gateway, key="one")
    assert (again.status_code, again.json()) == (202, first.json())
    assert (await send(gateway, key="two")).status_code == 409
    await receive(gateway, "start")
    assert (await send(gateway, key="two")).status_code == 202


async def test_the_api_suppresses_an_address_and_lifts_the_suppression(gateway: httpx.AsyncClient) -> None:
    path = "/api/suppressions/(804) 555-1234"
    first = await gateway.put(path, json={"reason": "on the phone"})
    shown = first.json()
    assert (first.status_code, shown.pop("since")[:4]) == (200, str(now().year))
    assert shown == {
        "channel": "sms",
        "address": BOB,
        "sender": None,
        "source": "api",
        "detail": "on the phone",
        "by": "anonymous",
    }
    again = await gateway.put(path, json={"reason": "another"})
    assert again.json() == first.json()
    refused = await send(gateway)
    assert refused.json()["detail"].startswith("The recipient opted out of messages from all senders on ")

    for _ in range(2):
        lifted = await gateway.delete(path)
        assert (lifted.status_code, lifted.content) == (204, b"")
    assert await status_of(gateway) == 202


async def test_the_suppressions_for_one_sender_and_for_all_are_independent(
    gateway: httpx.AsyncClient,
) -> None:
    path = f"/api/suppressions/{BOB}"
    put = await gateway.put(path, params={"sender": ALICE}, json={"reason": "a test"})
    assert put.json()["sender"] == ALICE
    assert await status_of(gateway) == 409
    assert await status_of(gateway, {**TO_BOB, "from": OTHER_SENDER}) == 202
    await gateway.delete(path)
    assert await status_of(gateway) == 409
    await gateway.delete(path, params={"sender": ALICE})
    assert await status_of(gateway) == 202


async def test_a_link_in_an_email_unsubscribes(
    start_gateway: StartGateway, nats_url: str, database_url: str
) -> None:
    async with start_gateway(
        nats_url=nats_url, database_url=database_url, unsubscribe_secret=SECRET
    ) as gateway:
        assert (await gateway.get(LINK)).status_code == 200
        assert await status_of(gateway, TO_BEN) == 202

        for _ in range(2):
            done = await gateway.post(LINK, data={"List-Unsubscribe": "One-Click"})
            assert done.status_code == 200
        assert await status_of(gateway, TO_BEN) == 409
        assert await status_of(gateway, {**TO_BEN, "from": "eve@example.com"}) == 202


async def test_every_send_after_the_response_to_a_stop_is_refused(
    gateway: httpx.AsyncClient, bus: Bus, publisher: Publisher
) -> None:
    """Forty opt-outs and forty messages at the same time are published in batches."""
    people = [f"+1804555{number:04}" for number in range(40)]
    await asyncio.gather(
        *(receive(gateway, "stop", **{"from": each, "messaging_provider_id": each}) for each in people),
        *(send(gateway, {**TO_BOB, "to": each}) for each in people),
    )
    statuses = await asyncio.gather(*(status_of(gateway, {**TO_BOB, "to": each}) for each in people))
    assert set(statuses) == {409}
    suppressions = SuppressionList(bus, publisher)
    assert all([await suppressions.latest(Channel.SMS, ALICE, each) for each in people])


def change(
    theirs: str,
    minute: float,
    state: SuppressionState = SuppressionState.OPTED_OUT,
    **fields: Any,  # noqa: ANN401
) -> SuppressionChange:
    channel = Channel.EMAIL if "@" in theirs else Channel.SMS
    values = {"ours": ALICE, "source": SuppressionSource.KEYWORD, "detail": "stop", **fields}
    return SuppressionChange(
        channel=channel, theirs=theirs, state=state, occurred_at=minutes(minute), **values
    )


async def listed(gateway: httpx.AsyncClient, query: str = "") -> list[str]:
    """List the suppressed addresses, in pages of two."""
    found: list[str] = []
    cursor = ""
    while True:
        response = await gateway.get(f"/api/suppressions?limit=2{query}{cursor}")
        assert response.status_code == 200, response.text
        found += [item["address"] for item in response.json()["items"]]
        if response.json()["next_cursor"] is None:
            return found
        cursor = f"&cursor={response.json()['next_cursor']}"


async def test_suppressed_addresses_are_listed_most_recent_first(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    opted_in = SuppressionState.OPTED_IN
    for each in (
        change("+18045550001", 1),
        change("+18045550002", 2),
        change("+18045550002", 3, opted_in),
        change("+18045550003", 4),
        change("+18045550003", 3.5, opted_in),
        change("+18045550004", 5, opted_in),
        change("+18045550004", 5),  # at the same moment, the opt-out counts
        change("ann@example.com", 6, ours=None, source=SuppressionSource.BOUNCE),
        change("+18045550001", 7, opted_in, ours=OTHER_SENDER),
    ):
        await rows.suppression(each)

    assert await listed(gateway) == ["ann@example.com", "+18045550004", "+18045550003", "+18045550001"]
    assert await listed(gateway, "&channel=email") == ["ann@example.com"]
    assert await listed(gateway, f"&address={quote('(804) 555-0003')}") == ["+18045550003"]
    assert await listed(gateway, "&address=Ann@example.com") == ["ann@example.com"]
    assert await listed(gateway, "&address=Ann@example.com&channel=sms") == []


async def test_a_suppression_is_shown_with_its_cause(gateway: httpx.AsyncClient, rows: Rows) -> None:
    await rows.suppression(change(BOB, 1, source=SuppressionSource.API, detail="on the phone", by="support"))

    [item] = (await gateway.get("/api/suppressions")).json()["items"]

    assert datetime.fromisoformat(item.pop("since")) == minutes(1)
    assert item == {
        "channel": "sms",
        "address": BOB,
        "sender": ALICE,
        "source": "api",
        "detail": "on the phone",
        "by": "support",
    }
