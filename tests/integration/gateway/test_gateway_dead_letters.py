"""What was given up can be looked at, and tried again."""

import base64
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from nats.js import JetStreamContext

from shared.bus.topology import Stream
from shared.channels import Channel, Direction
from shared.errors import BadMessageError
from shared.events import (
    AttemptError,
    DeadLetter,
    DeadLetterResolution,
    DeadLetterResolved,
    DeliveryRequest,
    MessageAccepted,
    Origin,
    Resolution,
    decode,
    unreadable,
)
from shared.ids import dead_letter_id, event_id
from shared.lifecycle import Status
from tests import messages
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.stored import START, Store, minutes

pytestmark = pytest.mark.integration

PAYLOAD = b'{"type": "messaging.message.received.v9"}'
SUBJECT = "inbound.message.sms.7.13db6b6e-2dbd-5c1c-b749-f90205e39fde"


def undelivered(*, generation: int = 0, number: int = 1) -> DeadLetter:
    """Make the dead letter of a message that its provider would not take."""
    request = messages.request(generation=generation, attempt=8, deferral_count=3, expires_at=START)
    error = AttemptError(attempt=8, code="http_500", detail="no", at=START)
    return DeadLetter(
        id=dead_letter_id("a test", number),
        direction=Direction.OUTBOUND,
        channel=Channel.SMS,
        reason="attempts_exhausted",
        detail="8 attempts failed",
        message_id=request.message.id,
        generation=generation,
        attempts=8,
        errors=[error],
        request=request.model_copy(update={"errors": [error]}),
        origin=Origin(stream="OUTBOUND", sequence=1, subject="outbound.sms.0.x", consumer="sender-sms-00"),
    )


def not_understood(payload: bytes = PAYLOAD) -> DeadLetter:
    """Make the dead letter of an event that nobody could read."""
    origin = Origin(stream="INBOUND", sequence=5, subject=SUBJECT, consumer="ingest-inbound")
    return unreadable(payload, BadMessageError("unknown_type", "v9"), origin)


def request_of(dead_letter: DeadLetter) -> DeliveryRequest:
    assert dead_letter.request is not None
    return dead_letter.request


async def listed(gateway: httpx.AsyncClient, query: str = "") -> list[UUID]:
    response = await gateway.get(f"/api/dead-letters{query}")
    assert response.status_code == 200, response.text
    return [UUID(item["id"]) for item in response.json()["items"]]


async def test_a_dead_letter_tells_everything(gateway: httpx.AsyncClient, store: Store) -> None:
    dead_letter = undelivered()
    await store.dead_letter(dead_letter)

    await store.event(request_of(dead_letter).message.id, Status.FAILED, attempt=8)

    shown = (await gateway.get(f"/api/dead-letters/{dead_letter.id}")).json()

    assert [(entry["status"], entry["attempt"]) for entry in shown.pop("history")] == [("failed", 8)]
    assert (shown.pop("state"), shown.pop("resolution")) == ("open", None)
    assert shown.pop("created_at") == "2024-11-01T14:00:00Z"
    assert shown == dead_letter.model_dump(mode="json", by_alias=True)


async def test_it_tells_who_resolved_it_and_why(gateway: httpx.AsyncClient, store: Store) -> None:
    dead_letter = not_understood()
    await store.dead_letter(dead_letter)
    await store.resolution(dead_letter, Resolution.DISCARDED, reason="of no use", resolved_at=minutes(1))

    shown = (await gateway.get(f"/api/dead-letters/{dead_letter.id}")).json()

    assert (shown["state"], shown["history"]) == ("discarded", [])
    assert shown["resolution"] == {"by": "support", "at": "2024-11-01T14:01:00Z", "reason": "of no use"}


REPLAYED, DISCARDED = Resolution.REPLAYED, Resolution.DISCARDED


@pytest.mark.parametrize(
    ("resolutions", "later_round", "state", "by"),
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
async def test_each_fact_alone_tells_the_state(
    gateway: httpx.AsyncClient,
    store: Store,
    resolutions: list[Resolution],
    *,
    later_round: bool,
    state: str,
    by: str | None,
) -> None:
    dead_letter = undelivered()
    for resolution in resolutions:
        await store.resolution(dead_letter, resolution, resolved_by=resolution)
    if later_round:
        await store.event(request_of(dead_letter).message.id, Status.ACCEPTED, generation=1)
    await store.dead_letter(dead_letter)

    shown = (await gateway.get(f"/api/dead-letters/{dead_letter.id}")).json()

    assert shown["state"] == state
    assert (shown["resolution"] and shown["resolution"]["by"]) == by
    assert await listed(gateway, f"?state={state}") == [dead_letter.id]
    for other in {"open", "replayed", "discarded"} - {state}:
        assert await listed(gateway, f"?state={other}") == []


async def test_dead_letters_are_listed_newest_first_and_can_be_searched(
    gateway: httpx.AsyncClient, store: Store
) -> None:
    first, second, third = undelivered(number=1), not_understood(), undelivered(number=2, generation=1)
    for number, dead_letter in enumerate((first, second, third)):
        await store.dead_letter(dead_letter, at=minutes(number))
    await store.event(request_of(first).message.id, Status.ACCEPTED, generation=1)
    await store.event(request_of(third).message.id, Status.ACCEPTED, generation=1)

    assert await listed(gateway) == [third.id, second.id, first.id]
    assert await listed(gateway, "?direction=inbound") == [second.id]
    assert await listed(gateway, "?channel=sms&reason=attempts_exhausted") == [third.id, first.id]
    assert await listed(gateway, f"?message_id={first.message_id}") == [first.id]
    assert await listed(gateway, "?state=replayed") == [first.id]
    assert await listed(gateway, "?state=open") == [third.id, second.id]
    assert await listed(gateway, "?channel=email") == []


async def test_pages_of_dead_letters(gateway: httpx.AsyncClient, store: Store) -> None:
    dead_letters = [undelivered(number=number) for number in range(5)]
    for number, dead_letter in enumerate(dead_letters):
        await store.dead_letter(dead_letter, at=minutes(number // 2))

    seen, cursor = [], ""
    while True:
        page = (await gateway.get(f"/api/dead-letters?limit=2{cursor}")).json()
        seen += [UUID(item["id"]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    places = {letter.id: (number // 2, letter.id) for number, letter in enumerate(dead_letters)}
    assert seen == sorted(places, key=lambda id_: places[id_], reverse=True)


async def test_a_replay_starts_the_next_round(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext
) -> None:
    dead_letter = undelivered(generation=2)
    await store.dead_letter(dead_letter)

    responses = [await gateway.post(f"/api/dead-letters/{dead_letter.id}/replay") for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 202]
    assert responses[0].json() == {
        "dead_letter_id": str(dead_letter.id),
        "message_id": str(dead_letter.message_id),
        "generation": 3,
    }
    # The second was asked for before ingest knew of the first, and is the same one.
    assert (await jetstream.stream_info(Stream.OUTBOUND)).state.messages == 1
    event = decode((await jetstream.get_msg(Stream.OUTBOUND, 1)).data or b"")
    assert isinstance(event, MessageAccepted)
    request = event.data
    assert request.message == request_of(dead_letter).message
    assert (request.generation, request.attempt, request.deferral_count, request.errors) == (3, 1, 0, [])
    assert request.expires_at > datetime.now(UTC) + timedelta(hours=3)


@pytest.mark.parametrize("what", ["replay", "discard"])
@pytest.mark.parametrize("resolution", Resolution)
async def test_what_was_resolved_is_not_resolved_again(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext, resolution: Resolution, what: str
) -> None:
    dead_letter = undelivered()
    await store.dead_letter(dead_letter)
    await store.resolution(dead_letter, resolution)

    response = await gateway.post(f"/api/dead-letters/{dead_letter.id}/{what}", json={"reason": "again"})

    assert (response.status_code, response.json()["detail"]) == (409, f"It was {resolution} already")
    assert (await jetstream.stream_info(Stream.OUTBOUND)).state.messages == 0
    assert await resolutions_told(jetstream) == []


async def resolutions_told(jetstream: JetStreamContext) -> list[DeadLetterResolution]:
    """What DEADLETTER says of dead letters."""
    last = (await jetstream.stream_info(Stream.DEADLETTER)).state.last_seq
    stored = [await jetstream.get_msg(Stream.DEADLETTER, number) for number in range(1, last + 1)]
    told = [decode(message.data or b"") for message in stored]
    assert {str(message.subject).rpartition(".")[0] for message in stored} <= {"deadletter.resolved"}
    return [event.data for event in told if isinstance(event, DeadLetterResolved)]


@pytest.mark.parametrize("letter", ["undelivered", "not understood"])
async def test_a_replay_tells_who_asked_for_it(
    start_gateway: StartGateway,
    nats_url: str,
    database_url: str,
    store: Store,
    jetstream: JetStreamContext,
    letter: str,
) -> None:
    dead_letter = undelivered() if letter == "undelivered" else not_understood()
    await store.dead_letter(dead_letter)

    settings = {"nats_url": nats_url, "database_url": database_url, "api_keys": "support:right"}
    async with start_gateway(**settings) as gateway:
        key = {"Authorization": "Bearer right"}
        for _ in range(2):
            response = await gateway.post(f"/api/dead-letters/{dead_letter.id}/replay", headers=key)
            assert response.status_code == 202

    [told] = await resolutions_told(jetstream)
    assert (told.dead_letter_id, told.resolution, told.reason, told.by) == (
        dead_letter.id, REPLAYED, None, "support",
    )  # fmt: skip


async def test_a_discard_is_told_once_with_its_first_reason(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext
) -> None:
    dead_letter = not_understood()
    await store.dead_letter(dead_letter)

    for reason in ("of no use", "another reason"):
        response = await gateway.post(f"/api/dead-letters/{dead_letter.id}/discard", json={"reason": reason})
        assert response.status_code == 202
        assert response.json() == {"dead_letter_id": str(dead_letter.id), "message_id": None}

    [told] = await resolutions_told(jetstream)
    assert (told.resolution, told.reason, told.by) == (DISCARDED, "of no use", "anonymous")


async def test_what_only_ingest_gave_up_is_not_sent_again(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext
) -> None:
    event = messages.accepted()
    origin = Origin(stream="OUTBOUND", sequence=5, subject="outbound.sms.7.x", consumer="ingest-outbound")
    dead_letter = unreadable(event.encode(), BadMessageError("not_storable", "…"), origin)
    await store.dead_letter(dead_letter)

    response = await gateway.post(f"/api/dead-letters/{dead_letter.id}/replay")

    assert (response.status_code, response.json()["generation"]) == (202, None)
    assert (await jetstream.get_msg(Stream.OUTBOUND, 1)).data == event.encode()


async def test_a_replay_whose_record_was_not_stored_can_be_repeated(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext
) -> None:
    dead_letter = not_understood()
    await store.dead_letter(dead_letter)
    deadletter = (await jetstream.stream_info(Stream.DEADLETTER)).config
    await jetstream.delete_stream(Stream.DEADLETTER)  # as if the gateway died between the two

    first = await gateway.post(f"/api/dead-letters/{dead_letter.id}/replay")
    await jetstream.add_stream(deadletter)
    still_open = await listed(gateway, "?state=open")
    again = await gateway.post(f"/api/dead-letters/{dead_letter.id}/replay")

    assert (first.status_code, still_open, again.status_code) == (503, [dead_letter.id], 202)
    assert (await jetstream.stream_info(Stream.INBOUND)).state.messages == 1
    assert len(await resolutions_told(jetstream)) == 1


@pytest.mark.parametrize("payload", [PAYLOAD, b"\xff\x00 no text"])
async def test_what_could_not_be_read_goes_back_to_where_it_was(
    gateway: httpx.AsyncClient, store: Store, jetstream: JetStreamContext, payload: bytes
) -> None:
    dead_letter = not_understood(payload)
    await store.dead_letter(dead_letter)

    responses = [await gateway.post(f"/api/dead-letters/{dead_letter.id}/replay") for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 202]
    assert (await jetstream.stream_info(Stream.INBOUND)).state.messages == 1
    message = await jetstream.get_msg(Stream.INBOUND, 1)
    assert (message.subject, message.data) == (SUBJECT, payload)
    assert message.headers == {"Nats-Msg-Id": str(event_id(dead_letter.id, "replayed"))}


@pytest.mark.parametrize("stream", ["INBOUND", "ELSEWHERE"])
async def test_what_is_lost_cannot_be_replayed(gateway: httpx.AsyncClient, store: Store, stream: str) -> None:
    origin = Origin(stream=stream, sequence=5, subject=SUBJECT, consumer="ingest-inbound")
    payload = None if stream == "INBOUND" else base64.b64encode(PAYLOAD).decode()
    update = {"payload": None, "payload_base64": payload, "origin": origin}
    dead_letter = not_understood().model_copy(update=update)
    await store.dead_letter(dead_letter)

    response = await gateway.post(f"/api/dead-letters/{dead_letter.id}/replay")

    assert response.status_code == 409


async def test_what_does_not_exist_cannot_be_replayed(gateway: httpx.AsyncClient) -> None:
    response = await gateway.post(f"/api/dead-letters/{dead_letter_id('nothing')}/replay")

    assert response.status_code == 404
