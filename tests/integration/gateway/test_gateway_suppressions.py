"""Who has opted out is not sent to, and can be listed, added and taken off."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from nats.js import JetStreamContext

from services.gateway.settings import GatewaySettings
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import Stream
from shared.channels import Channel
from shared.suppressions import SuppressionList
from shared.unsubscribe import Subscription
from tests.integration.gateway.conftest import StartGateway
from tests.messages import ALICE, BOB, now

SECRET = "a secret of some length"
LINK = "/unsubscribe/" + Subscription(Channel.EMAIL, "ann@example.com", "ben@example.org").sign(SECRET)
TO_BOB = {"from": ALICE, "to": BOB, "type": "sms", "body": "Hello"}
BY_MAIL = {"from": "Ann@example.com", "to": "Ben@example.org", "body": "Hello"}


@pytest.fixture
def suppressions(bus: Bus, publisher: Publisher) -> SuppressionList:
    return SuppressionList(bus, publisher)


async def hear(gateway: httpx.AsyncClient, body: str, **fields: Any) -> httpx.Response:  # noqa: ANN401
    """Post what Bob writes to Alice."""
    payload = {"from": BOB, "to": ALICE, "type": "sms", "messaging_provider_id": body, "body": body, **fields}
    response = await gateway.post("/api/webhooks/sms", json=payload)
    assert response.status_code == 200, response.text
    return response


async def answer_to(gateway: httpx.AsyncClient, payload: dict[str, str] = TO_BOB, **headers: str) -> int:
    channel = "email" if "@" in payload["to"] else "sms"
    return (await gateway.post(f"/api/messages/{channel}", json=payload, headers=headers)).status_code


async def test_a_keyword_holds_as_soon_as_its_webhook_is_answered(
    gateway: httpx.AsyncClient, jetstream: JetStreamContext
) -> None:
    for _ in range(3):
        await hear(gateway, "Stop.")
        refused = await gateway.post("/api/messages/sms", json=TO_BOB)
        assert refused.status_code == 409
        assert f"no messages of {ALICE} since {now():%Y-}" in refused.json()["detail"]
        assert "(keyword)" in refused.json()["detail"]
        assert await answer_to(gateway, {**TO_BOB, "from": "+12015550000"}) == 202
    await hear(gateway, "help")
    assert await answer_to(gateway) == 409
    await hear(gateway, "yes")
    assert await answer_to(gateway) == 202

    assert (await jetstream.stream_info(Stream.SUPPRESSIONS)).state.messages == 2
    assert (await jetstream.stream_info(Stream.INBOUND)).state.messages == 3


async def test_a_webhook_that_comes_again_takes_nothing_back(gateway: httpx.AsyncClient) -> None:
    await hear(gateway, "stop")
    await hear(gateway, "start")
    await hear(gateway, "stop")

    assert await answer_to(gateway) == 202


async def test_of_webhooks_that_come_late_the_latest_text_counts(gateway: httpx.AsyncClient) -> None:
    hour_ago, before_that = now() - timedelta(hours=1), now() - timedelta(hours=2)
    await hear(gateway, "start", timestamp=hour_ago.isoformat())
    await hear(gateway, "stop", timestamp=before_that.isoformat())
    assert await answer_to(gateway) == 202

    await hear(gateway, "end", timestamp=(now() + timedelta(days=1)).isoformat())
    assert await answer_to(gateway) == 409
    await hear(gateway, "unstop")
    assert await answer_to(gateway) == 202


async def test_a_message_that_was_accepted_before_keeps_its_answer(gateway: httpx.AsyncClient) -> None:
    async def send(key: str) -> httpx.Response:
        return await gateway.post("/api/messages/sms", json=TO_BOB, headers={"Idempotency-Key": key})

    first = await send("one")
    await hear(gateway, "stop")
    assert ((await send("one")).status_code, (await send("one")).json()) == (202, first.json())
    assert (await send("two")).status_code == 409
    await hear(gateway, "start")
    assert (await send("two")).status_code == 202


async def test_the_api_suppresses_and_lifts(gateway: httpx.AsyncClient) -> None:
    place, reason = "/api/suppressions/(804) 555-1234", {"reason": "on the phone"}
    first = await gateway.put(place, json=reason)
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
    again = await gateway.put(place, json={"reason": "another"})
    assert again.json() == first.json()
    assert await answer_to(gateway) == 409

    for _ in range(2):
        assert (await gateway.delete(place)).status_code == 204
    assert await answer_to(gateway) == 202


async def test_of_one_sender_and_of_all_are_two_things(gateway: httpx.AsyncClient) -> None:
    place, reason = f"/api/suppressions/{BOB}", {"reason": "a test"}
    await gateway.put(place, params={"sender": ALICE}, json=reason)
    assert await answer_to(gateway) == 409
    assert await answer_to(gateway, {**TO_BOB, "from": "+12015550000"}) == 202
    await gateway.delete(place)
    assert await answer_to(gateway) == 409
    await gateway.delete(place, params={"sender": ALICE})
    assert await answer_to(gateway) == 202


@pytest.mark.parametrize(
    ("address", "sender", "body", "field"),
    [
        ("nobody@", None, {"reason": "x"}, "address"),
        ("12", None, {"reason": "x"}, "address"),
        (BOB, "ann@example.com", {"reason": "x"}, "sender"),
        (BOB, "12", {"reason": "x"}, "sender"),
        (BOB, None, {}, "reason"),
        (BOB, None, {"reason": " "}, "reason"),
        (BOB, None, {"reason": "x", "why": "x"}, "why"),
    ],
)
async def test_what_cannot_be_suppressed(
    gateway: httpx.AsyncClient, address: str, sender: str | None, body: dict[str, str], field: str
) -> None:
    query = {"sender": sender} if sender else {}
    response = await gateway.put(f"/api/suppressions/{address}", params=query, json=body)

    assert response.status_code == 422
    assert [fault["field"] for fault in response.json()["errors"]] == [field]


@pytest.fixture
async def linked(start_gateway: StartGateway, nats_url: str, database_url: str) -> Any:  # noqa: ANN401
    """A gateway that follows the links in mails."""
    async with start_gateway(
        nats_url=nats_url, database_url=database_url, unsubscribe_secret=SECRET
    ) as gateway:
        yield gateway


async def test_a_link_asks_before_it_unsubscribes(linked: httpx.AsyncClient) -> None:
    page = await linked.get(LINK)
    assert page.status_code == 200
    assert '<form method="post">' in page.text
    assert "script" not in page.text
    assert await answer_to(linked, BY_MAIL) == 202

    for _ in range(2):  # as mail programs do it (RFC 8058), which send neither a key nor a cookie
        done = await linked.post(LINK, data={"List-Unsubscribe": "One-Click"})
        assert (done.status_code, "ben@example.org gets no more" in done.text) == (200, True)
    assert await answer_to(linked, BY_MAIL) == 409
    assert await answer_to(linked, {**BY_MAIL, "from": "eve@example.com"}) == 202


async def test_a_page_shows_addresses_as_text(linked: httpx.AsyncClient) -> None:
    odd = Subscription(Channel.EMAIL, "<b>@example.com", "ben@example.org").sign(SECRET)

    assert "&lt;b&gt;@example.com" in (await linked.get(f"/unsubscribe/{odd}")).text


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_link_that_we_did_not_make_leads_nowhere(
    gateway: httpx.AsyncClient, linked: httpx.AsyncClient, method: str
) -> None:
    assert (await linked.request(method, LINK[:-2] + "xx")).status_code == 404
    assert (await gateway.request(method, LINK)).status_code == 404  # which has no secret


async def test_sends_and_stops_at_the_same_time(gateway: httpx.AsyncClient, suppressions: SuppressionList) -> None:
    """Forty at once make batches; whoever is answered after the last STOP is refused."""
    people = [f"+1804555{number:04}" for number in range(40)]
    await asyncio.gather(
        *(hear(gateway, "stop", **{"from": each, "messaging_provider_id": each}) for each in people),
        *(answer_to(gateway, {**TO_BOB, "to": each}) for each in people),
    )
    answers = await asyncio.gather(*(answer_to(gateway, {**TO_BOB, "to": each}) for each in people))
    assert set(answers) == {409}
    assert all([await suppressions.latest(Channel.SMS, ALICE, each) for each in people])


@pytest.mark.parametrize("secret", ["short", ""])
def test_a_secret_that_can_be_guessed_is_refused_or_none(secret: str) -> None:
    def load() -> GatewaySettings:
        return GatewaySettings(
            _env_file=None,
            nats_url="nats://x",
            database_url="postgresql+asyncpg://x",
            unsubscribe_secret=secret,
        )

    with pytest.raises(ValueError, match="unsubscribe_secret"):
        load()
