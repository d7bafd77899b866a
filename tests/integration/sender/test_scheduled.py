"""Scheduled messages, and their cancellation."""

import asyncio
from datetime import datetime, timedelta
from random import Random

import pytest

from services.gateway.http.errors import ConflictError
from services.gateway.messages.cancellation import CancellationService
from services.gateway.messages.schemas import MessageWithHistory
from services.sender.event_publisher import EventPublisher
from shared.bus.topology import Stream, sender_delayed
from shared.channels import Channel
from shared.dead_letters import Origin
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.message import DeliveryRequest
from shared.resources.messages import MessageResponse
from shared.status import Status
from tests import messages
from tests.integration.sender.conftest import Harness, SenderFactory
from tests.integration.sender.test_delivery import claim_of_a_dead_process
from tests.waiting import eventually

IN_AN_HOUR = timedelta(hours=1)


def scheduled(delay: timedelta) -> DeliveryRequest:
    send_at = messages.now() + delay
    return messages.request(messages.message(send_at=send_at), expires_at=send_at + timedelta(hours=4))


async def acceptance_times(harness: Harness) -> dict[str, datetime]:
    """Return when the provider accepted each message, by id."""
    return {
        accepted["idempotency_key"]: datetime.fromisoformat(accepted["accepted_at"])
        for accepted in await harness.provider.messages()
    }


async def cancel(harness: Harness, request: DeliveryRequest, *, status: Status = Status.SCHEDULED) -> Status:
    stored = MessageWithHistory.model_validate(
        {**MessageResponse.of(request.message, status).model_dump(), "history": []}
    )
    service = CancellationService(harness.ledger, harness.publisher, messages.now)
    return (await service.cancel(stored)).status


async def state_of(harness: Harness, request: DeliveryRequest) -> DeliveryState | None:
    found = await harness.ledger.look_up(request.message.id)
    return found.value.state if found else None


async def record(harness: Harness, request: DeliveryRequest, state: DeliveryState, **fields: object) -> None:
    fields = {"step": request.step, "state": state, "at": messages.now(), **fields}
    entry = LedgerEntry.model_validate(fields)
    await harness.ledger.write(request.message.id, entry, after=None)


async def test_a_scheduled_message_waits_and_does_not_block_others(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept(scheduled(timedelta(seconds=1.5)))
    other = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")
    accepted_at = await acceptance_times(harness)
    assert list(accepted_at) == [str(other.message.id), str(request.message.id)]
    assert accepted_at[str(request.message.id)] >= (request.message.send_at or messages.now())
    assert await harness.statuses(request) == ["scheduled", "sent"]
    [report, _] = await harness.reports(request)
    assert datetime.fromisoformat(report["next_attempt_at"]) == request.message.send_at


async def test_a_message_that_becomes_due_without_a_sender_is_sent_by_the_next_one(
    harness: Harness, sender: SenderFactory
) -> None:
    request = scheduled(timedelta(seconds=0.1))
    await record(harness, request, DeliveryState.DEFERRED, due=request.message.send_at)
    found = await harness.ledger.look_up(request.message.id)
    assert found is not None
    origin = Origin(stream="OUTBOUND", sequence=1, subject="outbound.sms.0.x", consumer="sender-sms-00")
    await EventPublisher(harness.publisher).publish(request, found.value, origin)

    async def is_due() -> bool:
        info = await harness.bus.jetstream.consumer_info(delayed.stream, delayed.name)
        return bool(info.num_pending)

    delayed = sender_delayed(Channel.SMS)
    await eventually(is_due)
    async with sender():
        await harness.wait_for_status(request, "sent")
        await harness.reset_consumers()
        await eventually(harness.is_idle)
    assert len(await harness.provider.messages()) == 1


async def test_a_message_that_no_sender_saw_before_its_time_is_sent_at_once(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept(scheduled(timedelta(seconds=-1)))
    async with sender():
        await harness.wait_for_status(request, "sent")
    assert await harness.statuses(request) == ["sent"]


async def test_a_message_that_becomes_due_while_the_breaker_is_open_is_deferred_again(
    harness: Harness, sender: SenderFactory
) -> None:
    async def is_deferred_again() -> bool:
        found = await harness.ledger.look_up(request.message.id)
        return found is not None and found.value.step == (0, 1, 1)

    await harness.provider.behave(status=401)
    async with sender():
        refused = await harness.accept()
        await harness.wait_for_status(refused, "scheduled")
        request = await harness.accept(scheduled(timedelta(seconds=0.1)))
        await eventually(is_deferred_again)
    assert await harness.dead_letters() == []


@pytest.mark.parametrize("seen", [False, True])
async def test_a_cancelled_message_is_not_sent_even_if_all_streams_are_replayed(
    harness: Harness, sender: SenderFactory, *, seen: bool
) -> None:
    request = scheduled(timedelta(seconds=1))
    if not seen:
        assert await cancel(harness, request, status=Status.ACCEPTED) is Status.CANCELED
    await harness.accept(request)
    async with sender():
        if seen:
            await harness.wait_for_status(request, "scheduled")
            assert await cancel(harness, request) is Status.CANCELED
        send_at = request.message.send_at or messages.now()
        later = await harness.accept(scheduled(send_at - messages.now() + timedelta(seconds=0.5)))
        await harness.wait_for_status(later, "sent")
        statuses = await harness.statuses(request)

        await harness.reset_consumers()
        await harness.accept(request.model_copy(update={"deferral_count": 1}))
        await eventually(harness.is_idle)
    assert statuses == ["scheduled", "canceled"][not seen :]
    assert await harness.statuses(request) == statuses
    assert list(await acceptance_times(harness)) == [str(later.message.id)]
    assert await harness.dead_letters() == []


async def test_a_later_generation_of_a_cancelled_message_is_cancelled_as_well(
    harness: Harness, sender: SenderFactory
) -> None:
    async def are_both_reported() -> bool:
        reports = [(each["generation"], each["status"]) for each in await harness.reports(request)]
        return reports == [(0, "canceled"), (1, "canceled")]

    request = scheduled(IN_AN_HOUR)
    await cancel(harness, request)
    async with sender():
        await harness.accept(request.model_copy(update={"generation": 1}))
        await eventually(are_both_reported)
    assert await harness.provider.messages() == []


@pytest.mark.parametrize("step", [(0, 1, 0), (0, 1, 1)])
async def test_the_sender_publishes_a_cancellation_that_was_not_published(
    harness: Harness, sender: SenderFactory, step: tuple[int, int, int]
) -> None:
    request = scheduled(IN_AN_HOUR)
    await record(harness, request, DeliveryState.CANCELED, step=step)
    await harness.accept(request)
    async with sender():
        await harness.wait_for_status(request, "canceled")


async def test_cancelling_again_publishes_the_same_event(harness: Harness) -> None:
    request = scheduled(IN_AN_HOUR)
    for _ in range(2):
        assert await cancel(harness, request) is Status.CANCELED
    [event] = await harness.stored(Stream.EVENTS)
    assert (event["source"], event["type"]) == ("/gateway", "messaging.message.canceled.v1")


async def test_the_gateway_and_the_sender_publish_a_cancellation_with_the_same_id(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=503)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "retrying")

        async def is_canceled() -> bool:
            try:
                return await cancel(harness, request, status=Status.RETRYING) is Status.CANCELED
            except ConflictError:
                return False  # during an attempt

        await eventually(is_canceled)
        await harness.reset_consumers()
        await eventually(harness.is_idle)
    events = await harness.stored(Stream.EVENTS)
    assert len({event["id"] for event in events if event["data"]["status"] == "canceled"}) == 1
    assert await harness.dead_letters() == []


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        (DeliveryState.CLAIMED, {}),
        (DeliveryState.SENT, {}),
        (DeliveryState.FAILED, {}),
        (DeliveryState.EXPIRED, {}),
        (DeliveryState.RETRYING, {"in_doubt_at": "generic_sms"}),
        (DeliveryState.DEFERRED, {"in_doubt_at": "generic_sms"}),
    ],
)
async def test_a_message_that_is_being_sent_or_has_ended_cannot_be_cancelled(
    harness: Harness, state: DeliveryState, fields: dict[str, object]
) -> None:
    request = messages.request()
    await record(harness, request, state, **fields)
    with pytest.raises(ConflictError):
        await cancel(harness, request)
    assert await state_of(harness, request) is state
    assert await harness.stored(Stream.EVENTS) == []


@pytest.mark.parametrize("status", [Status.RECEIVED, Status.SENT, Status.DELIVERED, Status.FAILED])
async def test_a_message_the_ledger_has_forgotten_cannot_be_cancelled(
    harness: Harness, status: Status
) -> None:
    with pytest.raises(ConflictError, match=status):
        await cancel(harness, messages.request(), status=status)


async def test_after_an_unanswered_attempt_it_is_too_late(harness: Harness, sender: SenderFactory) -> None:
    async def has_failed_twice() -> bool:
        return (await harness.statuses(request)).count("retrying") >= 2

    await harness.provider.behave(drop_connection=True, times=1)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "retrying")
        await harness.provider.behave(status=408, retry_after=60)
        await eventually(has_failed_twice)
    with pytest.raises(ConflictError, match="no response"):
        await cancel(harness, request)


async def test_after_an_expired_claim_it_is_too_late(harness: Harness, sender: SenderFactory) -> None:
    await harness.provider.behave(status=408, retry_after=60)
    request = messages.request()
    await claim_of_a_dead_process(harness, request)
    await harness.accept(request)
    async with sender():
        await harness.wait_for_status(request, "retrying")
    with pytest.raises(ConflictError, match="no response"):
        await cancel(harness, request)


async def test_each_message_is_either_sent_or_cancelled(harness: Harness, sender: SenderFactory) -> None:
    requests = [scheduled(timedelta(seconds=2)) for _ in range(80)]
    random = Random(8)
    at_once, never, at_its_time = requests[:5], requests[5:10], requests[10:]

    async def try_to_cancel(request: DeliveryRequest) -> bool:
        if request not in at_once:
            late = timedelta(seconds=random.uniform(-0.05, 0.6))
            send_at = request.message.send_at or messages.now()
            await asyncio.sleep((send_at + late - messages.now()).total_seconds())
        try:
            return await cancel(harness, request) is Status.CANCELED
        except ConflictError:
            return False

    async def all_have_ended() -> bool:
        reports = [event["data"] for event in await harness.stored(Stream.EVENTS)]
        return len({r["message_id"] for r in reports if r["status"] in {"sent", "canceled"}}) == len(requests)

    for request in requests:
        await harness.accept(request)
    async with sender(), sender():
        tries = [request for request in (*at_once, *at_its_time) for _ in range(3)]
        outcomes = await asyncio.gather(*(try_to_cancel(request) for request in tries))
        await eventually(all_have_ended)
        await eventually(harness.is_idle)
    canceled = {str(request.message.id) for request, done in zip(tries, outcomes, strict=True) if done}
    sent = [accepted["idempotency_key"] for accepted in await harness.provider.messages()]
    assert sorted([*sent, *canceled]) == sorted(str(request.message.id) for request in requests)
    assert (await harness.provider.stats())["requests"] == len(sent)
    assert {str(request.message.id) for request in at_once} <= canceled
    assert {str(request.message.id) for request in never} <= set(sent)
    for request in requests:
        end = "canceled" if str(request.message.id) in canceled else "sent"
        assert [each for each in await harness.statuses(request) if each != "scheduled"] == [end]
