"""Dead letters, as they are stored."""

import asyncio
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from shared.dead_letters import Resolution
from shared.status import Status
from tests.integration.gateway.dead_letters.letters import request_of, undelivered, unknown
from tests.integration.gateway.rows import Rows, minutes
from tests.waiting import eventually

pytestmark = pytest.mark.integration

REPLAYED, DISCARDED = Resolution.REPLAYED, Resolution.DISCARDED


async def listed(gateway: httpx.AsyncClient, query: str = "") -> list[UUID]:
    response = await gateway.get(f"/api/dead-letters{query}")
    assert response.status_code == 200, response.text
    return [UUID(item["id"]) for item in response.json()["items"]]


async def test_a_dead_letter_is_shown_with_the_history_of_its_message(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    dead_letter = undelivered()
    await rows.dead_letter(dead_letter)
    await rows.event(request_of(dead_letter).message.id, Status.FAILED, attempt=8)

    shown = (await gateway.get(f"/api/dead-letters/{dead_letter.id}")).json()

    assert [(entry["status"], entry["attempt"]) for entry in shown.pop("history")] == [("failed", 8)]
    assert (shown.pop("state"), shown.pop("is_sent"), shown.pop("resolution")) == ("open", False, None)
    assert shown.pop("created_at") == "2024-11-01T14:00:00Z"
    internal = {"request", "origin"}
    assert shown == dead_letter.model_dump(mode="json", by_alias=True, exclude=internal)


async def test_a_resolution_is_shown_with_its_reason(gateway: httpx.AsyncClient, rows: Rows) -> None:
    dead_letter = unknown()
    await rows.dead_letter(dead_letter)
    await rows.resolution(dead_letter, DISCARDED, reason="of no use", resolved_at=minutes(1))

    shown = (await gateway.get(f"/api/dead-letters/{dead_letter.id}")).json()

    assert (shown["state"], shown["history"]) == ("discarded", [])
    assert shown["resolution"] == {"by": "support", "at": "2024-11-01T14:01:00Z", "reason": "of no use"}


@pytest.mark.parametrize(
    ("resolutions", "has_later_generation", "state", "by"),
    [
        ([], False, "open", None),
        ([], True, "replayed", None),
        ([REPLAYED], False, "replayed", "replayed"),
        ([REPLAYED], True, "replayed", "replayed"),
        ([DISCARDED], False, "discarded", "discarded"),
        ([DISCARDED], True, "replayed", None),
        ([REPLAYED, DISCARDED], False, "replayed", "replayed"),
        ([DISCARDED, REPLAYED], True, "replayed", "replayed"),
    ],
)
async def test_the_state_follows_from_the_resolutions_and_the_generations(
    gateway: httpx.AsyncClient,
    rows: Rows,
    resolutions: list[Resolution],
    *,
    has_later_generation: bool,
    state: str,
    by: str | None,
) -> None:
    dead_letter = undelivered()
    for resolution in resolutions:
        await rows.resolution(dead_letter, resolution, resolved_by=resolution)
    if has_later_generation:
        await rows.event(request_of(dead_letter).message.id, Status.ACCEPTED, generation=1)
    await rows.dead_letter(dead_letter)

    shown = (await gateway.get(f"/api/dead-letters/{dead_letter.id}")).json()

    assert shown["state"] == state
    assert (shown["resolution"] and shown["resolution"]["by"]) == by
    assert await listed(gateway, f"?state={state}") == [dead_letter.id]
    for other in {"open", "replayed", "discarded"} - {state}:
        assert await listed(gateway, f"?state={other}") == []


async def test_a_dead_letter_is_resolved_even_if_both_are_stored_at_the_same_time(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    first, second = undelivered(1), undelivered(2)
    for dead_letter in (first, second):
        steps = [rows.dead_letter(dead_letter), rows.resolution(dead_letter, DISCARDED)]
        if dead_letter is second:
            steps.reverse()
        async with rows.engine.begin() as connection:
            # They wait for the lock, so that the second one sees what the first one has committed.
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('dead_letters.state'))"))
            storing = [asyncio.create_task(step) for step in steps]
            await eventually(lambda: _waiting(rows, 2))
        await asyncio.gather(*storing)

    assert {*await listed(gateway, "?state=discarded")} == {first.id, second.id}


async def _waiting(rows: Rows, count: int) -> bool:
    async with rows.engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(await connection.scalar(query) == count)


async def test_dead_letters_are_listed_newest_first_and_can_be_filtered(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    first, second, third = undelivered(1), unknown(), undelivered(2, generation=1)
    for number, dead_letter in enumerate((first, second, third)):
        await rows.dead_letter(dead_letter, at=minutes(number))
    await rows.event(request_of(first).message.id, Status.ACCEPTED, generation=1)
    await rows.event(request_of(third).message.id, Status.ACCEPTED, generation=1)

    assert await listed(gateway) == [third.id, second.id, first.id]
    assert await listed(gateway, "?direction=inbound") == [second.id]
    assert await listed(gateway, "?channel=sms&reason=attempts_exhausted") == [third.id, first.id]
    assert await listed(gateway, f"?message_id={first.message_id}") == [first.id]
    assert await listed(gateway, "?state=replayed") == [first.id]
    assert await listed(gateway, "?state=open") == [third.id, second.id]
    assert await listed(gateway, "?channel=email") == []


async def test_only_a_single_dead_letter_is_shown_with_its_long_body(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    dead_letter = unknown().model_copy(update={"payload": None, "payload_zlib": "eJwDAAAAAAE="})
    await rows.dead_letter(dead_letter)

    [item] = (await gateway.get("/api/dead-letters")).json()["items"]
    shown = (await gateway.get(f"/api/dead-letters/{dead_letter.id}")).json()
    assert (item["payload_zlib"], shown["payload_zlib"]) == (None, dead_letter.payload_zlib)


async def test_the_pages_of_dead_letters_show_each_of_them_once(
    gateway: httpx.AsyncClient, rows: Rows
) -> None:
    dead_letters = [undelivered(number) for number in range(5)]
    for number, dead_letter in enumerate(dead_letters):
        await rows.dead_letter(dead_letter, at=minutes(number // 2))

    seen, cursor = [], ""
    while True:
        page = (await gateway.get(f"/api/dead-letters?limit=2{cursor}")).json()
        seen += [UUID(item["id"]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    places = {letter.id: (number // 2, letter.id) for number, letter in enumerate(dead_letters)}
    assert seen == sorted(places, key=lambda id_: places[id_], reverse=True)


async def test_a_cursor_of_other_filters_is_refused(gateway: httpx.AsyncClient, rows: Rows) -> None:
    for number in range(2):
        await rows.dead_letter(undelivered(number))
    cursor = (await gateway.get("/api/dead-letters?limit=1&state=open")).json()["next_cursor"]

    response = await gateway.get(f"/api/dead-letters?cursor={cursor}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "cursor"


async def test_a_dead_letter_that_is_not_stored_is_not_found(gateway: httpx.AsyncClient) -> None:
    response = await gateway.get(f"/api/dead-letters/{uuid4()}")

    assert (response.status_code, response.json()["code"]) == (404, "dead_letter_not_found")
