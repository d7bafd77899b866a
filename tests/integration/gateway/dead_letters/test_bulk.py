"""Replaying and discarding many dead letters in a few requests."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.topology import Stream
from shared.dead_letters import DeadLetter, Resolution
from tests import messages
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.dead_letters.letters import undelivered, unknown
from tests.integration.gateway.rows import Rows, minutes
from tests.integration.gateway.streams import events

pytestmark = pytest.mark.integration

ALL = {"all": True}


def not_replayable() -> Sequence[tuple[DeadLetter, str]]:
    """Return dead letters that cannot be replayed, each with the reason."""
    nothing = "There is no payload to replay"
    cut = (
        "The payload is too large to be kept in the dead letter; replay it from its stream: "
        "message 5 of INBOUND"
    )
    advisory = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.OUTBOUND.x"
    return [
        (unknown(b"x" * 200_000), cut),
        (unknown(b"{}", stream="ADVISORIES", subject=advisory), nothing),
        (unknown(b"", sequence=6), nothing),
    ]


async def insert(rows: Rows, dead_letters: Sequence[DeadLetter]) -> None:
    """Insert dead letters a minute apart, the first one as the oldest."""
    for number, dead_letter in enumerate(dead_letters):
        await rows.dead_letter(dead_letter, at=minutes(number))


async def resolve(gateway: httpx.AsyncClient, action: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await gateway.post(f"/api/dead-letters/{action}", json=body)
    assert response.status_code == 202, response.text
    result: dict[str, Any] = response.json()
    return result


async def resolve_until_done(
    gateway: httpx.AsyncClient, action: str, body: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Repeat a request until nothing is left, as a client does."""
    cursor = None
    while True:
        result = await resolve(gateway, action, {**body, "cursor": cursor})
        yield result
        if (cursor := result["next_cursor"]) is None:
            return


async def replayed(jetstream: JetStreamContext) -> list[UUID]:
    """Return the ids of the messages in OUTBOUND, in their order."""
    return [event.data.message.id for event in await events(jetstream, Stream.OUTBOUND)]


async def resolved(jetstream: JetStreamContext) -> dict[UUID, tuple[Resolution, str | None]]:
    resolutions = [event.data for event in await events(jetstream, Stream.DEADLETTER)]
    return {each.dead_letter_id: (each.resolution, each.reason) for each in resolutions}


async def test_a_replay_resolves_the_open_dead_letters_of_the_filter(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    dead_letters = [undelivered(number, reason="http_503") for number in range(4)]
    await insert(rows, [*dead_letters, undelivered(9, reason="http_400")])
    await rows.resolution(dead_letters[1], Resolution.DISCARDED)
    await rows.resolution(dead_letters[2], Resolution.REPLAYED)

    result = await resolve(gateway, "replay", {"filter": {"reason": "http_503", "channel": "sms"}})

    assert result == {"resolved": 2, "skipped": [], "next_cursor": None}
    assert set(await replayed(jetstream)) == {dead_letters[0].message_id, dead_letters[3].message_id}
    assert await resolved(jetstream) == {
        dead_letters[0].id: (Resolution.REPLAYED, None),
        dead_letters[3].id: (Resolution.REPLAYED, None),
    }


@pytest.mark.parametrize(
    ("selected", "count"),
    [
        ({"all": True}, 2),
        ({"filter": {"direction": "inbound"}}, 1),
        ({"filter": {"message_id": str(uuid4())}}, 0),
    ],
)
async def test_a_discard_records_the_reason_for_each_dead_letter(
    gateway: httpx.AsyncClient,
    rows: Rows,
    jetstream: JetStreamContext,
    selected: dict[str, Any],
    count: int,
) -> None:
    await insert(rows, [undelivered(1), unknown()])

    result = await resolve(gateway, "discard", {**selected, "reason": "a test"})

    assert result == {"resolved": count, "skipped": [], "next_cursor": None}
    assert list((await resolved(jetstream)).values()) == [(Resolution.DISCARDED, "a test")] * count


async def test_a_filter_selects_the_dead_letter_of_a_message(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    one, another = undelivered(1), undelivered(2)
    await insert(rows, [one, another])

    result = await resolve(gateway, "replay", {"filter": {"message_id": str(another.message_id)}})

    assert result["resolved"] == 1
    assert await replayed(jetstream) == [another.message_id]


async def test_a_dead_letter_that_cannot_be_replayed_is_skipped_with_the_reason(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    skipped = not_replayable()
    good = undelivered(1)
    await insert(rows, [*(letter for letter, _ in skipped), good])

    result = await resolve(gateway, "replay", ALL)

    assert result["resolved"] == 1
    assert result["skipped"] == [
        {"dead_letter_id": str(letter.id), "reason": reason} for letter, reason in skipped
    ]
    assert result["next_cursor"] is None
    assert (await resolved(jetstream)).keys() == {good.id}


async def test_a_client_can_repeat_the_request_until_all_are_resolved_oldest_first(
    gateway: httpx.AsyncClient, rows: Rows, jetstream: JetStreamContext
) -> None:
    """Without an ingest that would store the resolutions: the cursor alone leads on."""
    dead_letters = [undelivered(number) for number in range(250)]
    await insert(rows, dead_letters)

    oldest_first = [letter.message_id for letter in dead_letters]
    count = 0
    async for result in resolve_until_done(gateway, "replay", {**ALL, "limit": 120}):
        assert 1 <= result["resolved"] <= 120
        count += result["resolved"]
        assert set(await replayed(jetstream)) == set(oldest_first[:count])
    assert count == 250

    repeated = resolve_until_done(gateway, "replay", {**ALL, "limit": 1_000})
    assert sum([result["resolved"] async for result in repeated]) == 250
    assert len(await replayed(jetstream)) == 250  # nothing is sent twice


async def test_dead_letters_after_the_first_request_are_excluded(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    await insert(rows, [undelivered(1), undelivered(2)])
    first = await resolve(gateway, "replay", {**ALL, "limit": 1})
    await rows.dead_letter(undelivered(3), at=messages.now())

    second = await resolve(gateway, "replay", {**ALL, "cursor": first["next_cursor"]})

    assert (second["resolved"], second["next_cursor"]) == (1, None)


@pytest.mark.parametrize(
    ("action", "body"),
    [("replay", {"filter": {"channel": "sms"}}), ("discard", {"all": True, "reason": "x"})],
)
async def test_a_cursor_is_valid_for_its_own_request_only(
    gateway: httpx.AsyncClient, rows: Rows, action: str, body: dict[str, Any]
) -> None:
    await insert(rows, [undelivered(1), undelivered(2)])
    cursor = (await resolve(gateway, "replay", {**ALL, "limit": 1}))["next_cursor"]

    response = await gateway.post(f"/api/dead-letters/{action}", json={**body, "cursor": cursor})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "cursor"


async def test_without_nats_nothing_is_resolved(
    start_gateway: StartGateway, database_url: str, rows: Rows
) -> None:
    await insert(rows, [undelivered(1)])
    async with start_gateway(
        ready=False, nats_url="nats://127.0.0.1:1", database_url=database_url
    ) as gateway:
        response = await gateway.post("/api/dead-letters/replay", json=ALL)

    assert (response.status_code, response.json()["code"]) == (503, "bus_unavailable")
