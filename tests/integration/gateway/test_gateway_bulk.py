"""Many dead letters are replayed or discarded by a few calls."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.topology import Stream
from shared.channels import Channel, Direction
from shared.errors import BadMessageError
from shared.events import (
    DeadLetter,
    DeadLetterResolved,
    MessageAccepted,
    Origin,
    Resolution,
    decode,
    unreadable,
)
from shared.ids import dead_letter_id
from tests import messages
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.stored import Store, minutes

pytestmark = pytest.mark.integration

ALL = {"all": True}


def undelivered(number: int, reason: str = "http_503") -> DeadLetter:
    request = messages.request(attempt=8)
    return DeadLetter(
        id=dead_letter_id("bulk", number),
        direction=Direction.OUTBOUND,
        channel=Channel.SMS,
        reason=reason,
        detail="no",
        message_id=request.message.id,
        request=request,
        origin=Origin(
            stream="OUTBOUND", sequence=number, subject="outbound.sms.0.x", consumer="sender-sms-00"
        ),
    )


def unusable() -> Sequence[tuple[DeadLetter, str]]:
    """Dead letters that cannot be replayed, and why."""
    error = BadMessageError("not_json", "no")

    def from_(stream: str, payload: bytes, subject: str = "inbound.message.sms.7.x") -> DeadLetter:
        sequence = len(payload)
        return unreadable(
            payload, error, Origin(stream=stream, sequence=sequence, subject=subject, consumer="c")
        )

    nothing = "Nothing is left of it that could be replayed"
    place = "message 200000 of INBOUND"
    return [
        (
            from_("INBOUND", b"x" * 200_000),
            f"It is too large to be kept whole here; replay it from its stream: {place}",
        ),
        (from_("ADVISORIES", b"{}", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.OUTBOUND.x"), nothing),
        (from_("INBOUND", b"", ""), nothing),
    ]


async def store_all(store: Store, dead_letters: Sequence[DeadLetter]) -> None:
    """Store them a minute apart, the first as the oldest."""
    for number, dead_letter in enumerate(dead_letters):
        await store.dead_letter(dead_letter, at=minutes(number))


async def call(gateway: httpx.AsyncClient, what: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await gateway.post(f"/api/dead-letters/{what}", json=body)
    assert response.status_code == 202, response.text
    result: dict[str, Any] = response.json()
    return result


async def calls(gateway: httpx.AsyncClient, what: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Repeat a call until nothing is left, as a client does."""
    cursor = None
    while True:
        result = await call(gateway, what, {**body, "cursor": cursor})
        yield result
        if (cursor := result["next_cursor"]) is None:
            return


async def stored(jetstream: JetStreamContext, stream: Stream) -> list[bytes]:
    last = (await jetstream.stream_info(stream)).state.last_seq
    return [(await jetstream.get_msg(stream, number)).data or b"" for number in range(1, last + 1)]


async def replayed(jetstream: JetStreamContext) -> list[UUID]:
    """Ids of the messages in OUTBOUND, in order."""
    events = [decode(payload) for payload in await stored(jetstream, Stream.OUTBOUND)]
    return [event.data.message.id for event in events if isinstance(event, MessageAccepted)]


async def resolved(jetstream: JetStreamContext) -> dict[UUID, tuple[Resolution, str | None]]:
    events = [decode(payload) for payload in await stored(jetstream, Stream.DEADLETTER)]
    return {
        event.data.dead_letter_id: (event.data.resolution, event.data.reason)
        for event in events
        if isinstance(event, DeadLetterResolved)
    }


async def test_a_replay_of_many_goes_by_the_filter_and_leaves_alone_what_is_not_open(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext
) -> None:
    dead_letters = [undelivered(number) for number in range(4)] + [undelivered(9, "http_400")]
    await store_all(store, dead_letters)
    await store.resolution(dead_letters[1], Resolution.DISCARDED)
    await store.resolution(dead_letters[2], Resolution.REPLAYED)

    result = await call(gateway, "replay", {"filter": {"reason": "http_503", "channel": "sms"}})

    assert result == {"taken": 2, "skipped": [], "next_cursor": None}
    assert set(await replayed(jetstream)) == {dead_letters[0].message_id, dead_letters[3].message_id}
    assert await resolved(jetstream) == {
        dead_letters[0].id: (Resolution.REPLAYED, None),
        dead_letters[3].id: (Resolution.REPLAYED, None),
    }


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({"all": True}, 2),
        ({"filter": {"direction": "inbound"}}, 1),
        ({"filter": {"message_id": str(undelivered(1).id)}}, 0),
    ],
)
async def test_a_discard_of_many_says_why_of_each(
    gateway: httpx.AsyncClient,
    store: Store,
    jetstream: JetStreamContext,
    chosen: dict[str, Any],
    count: int,
) -> None:
    await store_all(store, [undelivered(1), unusable()[0][0]])

    result = await call(gateway, "discard", {**chosen, "reason": "a test"})

    assert result == {"taken": count, "skipped": [], "next_cursor": None}
    assert list((await resolved(jetstream)).values()) == [(Resolution.DISCARDED, "a test")] * count


async def test_what_cannot_be_replayed_is_skipped_with_the_reason(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext
) -> None:
    skipped = unusable()
    good = undelivered(1)
    await store_all(store, [*(letter for letter, _ in skipped), good])

    result = await call(gateway, "replay", ALL)

    assert result["taken"] == 1
    assert result["skipped"] == [
        {"dead_letter_id": str(letter.id), "reason": reason} for letter, reason in skipped
    ]
    assert result["next_cursor"] is None
    assert (await resolved(jetstream)).keys() == {good.id}


async def test_the_oldest_come_first_and_a_client_can_loop_until_done(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext
) -> None:
    """Without an ingest that would store what was done: the cursor alone leads on."""
    dead_letters = [undelivered(number) for number in range(250)]
    await store_all(store, dead_letters)

    oldest_first = [letter.message_id for letter in dead_letters]
    taken = 0
    async for result in calls(gateway, "replay", {**ALL, "limit": 120}):
        assert 1 <= result["taken"] <= 120
        taken += result["taken"]
        assert set(await replayed(jetstream)) == set(oldest_first[:taken])
    assert taken == 250

    again = [result["taken"] async for result in calls(gateway, "replay", {**ALL, "limit": 1_000})]
    assert sum(again) == 250
    assert len(await replayed(jetstream)) == 250  # to begin again has sent nothing twice


async def test_what_is_given_up_after_the_first_call_is_left_alone(
    gateway: httpx.AsyncClient, store: Store
) -> None:
    await store_all(store, [undelivered(1), undelivered(2)])
    first = await call(gateway, "replay", {**ALL, "limit": 1})
    await store.dead_letter(undelivered(3), at=messages.now())

    second = await call(gateway, "replay", {**ALL, "cursor": first["next_cursor"]})

    assert (second["taken"], second["next_cursor"]) == (1, None)


@pytest.mark.parametrize(
    ("what", "body"),
    [("replay", {"filter": {"channel": "sms"}}), ("discard", {"all": True, "reason": "x"})],
)
async def test_a_cursor_goes_with_its_call_only(
    gateway: httpx.AsyncClient, store: Store, what: str, body: dict[str, Any]
) -> None:
    await store_all(store, [undelivered(1), undelivered(2)])
    cursor = (await call(gateway, "replay", {**ALL, "limit": 1}))["next_cursor"]

    response = await gateway.post(f"/api/dead-letters/{what}", json={**body, "cursor": cursor})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "cursor"


async def test_without_nats_nothing_is_done_and_that_is_said(
    start_gateway: StartGateway, database_url: str, store: Store
) -> None:
    await store_all(store, [undelivered(1)])
    async with start_gateway(
        ready=False, nats_url="nats://127.0.0.1:1", database_url=database_url
    ) as gateway:
        response = await gateway.post("/api/dead-letters/replay", json=ALL)

    assert response.status_code == 503
