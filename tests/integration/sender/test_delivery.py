import asyncio
from datetime import datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from services.sender.delivery import CLAIM_LEASE
from services.sender.settings import OnAmbiguous
from shared.bus.publisher import Outgoing
from shared.bus.topology import CONSUMERS, Stream
from shared.events import DeliveryRequest
from shared.ledger import Entry, State, step_of
from tests import messages
from tests.integration.sender.conftest import DELAYS, ForgetfulSms, Harness, SenderFactory
from tests.waiting import eventually


async def status_becomes(harness: Harness, request: DeliveryRequest, status: str) -> None:
    async def has_become() -> bool:
        return status in await harness.statuses(request)

    await eventually(has_become)


async def test_a_message_reaches_the_provider_with_its_id_as_key(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "sent")
    [taken] = await harness.provider.messages()
    assert taken["idempotency_key"] == str(request.message.id)
    assert taken["payload"]["body"] == request.message.body


async def test_three_500s_are_survived_and_the_message_is_sent_once(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=500, times=3)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "sent")
    assert await harness.statuses(request) == ["retrying", "retrying", "retrying", "sent"]
    assert len(await harness.provider.messages()) == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_retry_after_is_honoured(harness: Harness, sender: SenderFactory, times: int) -> None:
    await harness.provider.behave(status=429, retry_after=2, times=times)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "sent")
    refusals = [
        event["data"]
        for event in await harness.stored(Stream.EVENTS)
        if event["data"]["status"] == "retrying"
    ]
    [taken] = await harness.provider.messages()
    assert len(refusals) == times
    for refusal in refusals:
        asked_at = datetime.fromisoformat(refusal["error"]["at"])
        assert datetime.fromisoformat(refusal["next_attempt_at"]) >= asked_at + timedelta(seconds=2)
    last = datetime.fromisoformat(refusals[-1]["next_attempt_at"])
    assert datetime.fromisoformat(taken["accepted_at"]) >= last


@pytest.mark.parametrize("behaviour", [{"status": 400}, {"status": 404}, {"html": True}])
async def test_a_message_that_will_never_be_taken_is_dead_at_once(
    harness: Harness, sender: SenderFactory, behaviour: dict[str, object]
) -> None:
    await harness.provider.behave(**behaviour)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "failed")
    [letter] = await harness.dead_letters()
    assert letter["attempts"] == 1
    assert letter["reason"] in {"http_400", "http_404", "unreadable_answer"}
    assert letter["request"]["message"]["id"] == str(request.message.id)
    assert (await harness.provider.stats())["requests"] == 1


async def test_out_of_attempts_is_a_dead_letter_with_every_error_and_can_be_replayed(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=503)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "failed")
        [letter] = await harness.dead_letters()
        attempts = len(DELAYS) + 1
        assert letter["attempts"] == attempts
        assert [error["attempt"] for error in letter["errors"]] == list(range(1, attempts + 1))
        assert {error["status_code"] for error in letter["errors"]} == {503}

        await harness.provider.recover()
        await harness.accept(request.model_copy(update={"generation": 1}))
        await status_becomes(harness, request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_reset_consumers_send_nothing_twice_and_tell_nothing_new(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=500, times=2)
    requests = [await harness.accept() for _ in range(5)]
    rejected = await harness.accept(messages.request(expires_at=messages.now()))
    async with sender():
        for request in requests:
            await status_becomes(harness, request, "sent")
        await status_becomes(harness, rejected, "expired")
        asked = (await harness.provider.stats())["requests"]
        told = {event["id"] for event in await harness.stored(Stream.EVENTS)}

        await harness.reset_consumers()
        await eventually(harness.is_idle)
    assert (await harness.provider.stats())["requests"] == asked
    assert {event["id"] for event in await harness.stored(Stream.EVENTS)} == told


async def test_a_dead_letter_is_counted_once_however_often_it_is_told(
    harness: Harness, sender: SenderFactory
) -> None:
    def counted() -> float:
        labels = {"direction": "outbound", "channel": "sms", "reason": "http_422"}
        return REGISTRY.get_sample_value("messaging_dead_letters_total", labels) or 0

    before = counted()
    await harness.provider.behave(status=422)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "failed")
        await eventually(harness.is_idle)
        await harness.reset_consumers()
        await eventually(harness.is_idle)
    assert counted() == before + 1


async def test_an_expired_message_is_never_sent(harness: Harness, sender: SenderFactory) -> None:
    request = await harness.accept(messages.request(expires_at=messages.now()))
    async with sender():
        await status_becomes(harness, request, "expired")
    assert (await harness.provider.stats())["requests"] == 0


@pytest.mark.parametrize("behaviour", [{"ambiguous": True}, {"drop_connection": True}, {"hang": True}])
async def test_without_an_answer_the_same_key_is_sent_again(
    harness: Harness, sender: SenderFactory, behaviour: dict[str, object]
) -> None:
    await harness.provider.behave(**behaviour, times=1)
    request = await harness.accept()
    async with sender(patience=1.0):
        await status_becomes(harness, request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_without_an_answer_a_provider_without_keys_is_not_asked_again_if_so_set(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(ambiguous=True)
    request = await harness.accept()
    async with sender(kind=ForgetfulSms, on_ambiguous=OnAmbiguous.FAIL):
        await status_becomes(harness, request, "failed")
    assert (await harness.provider.stats())["requests"] == 1


async def test_bad_credentials_make_messages_wait_rather_than_die(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=401, times=1)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "scheduled")
    assert await harness.dead_letters() == []


async def test_a_process_that_reaches_no_provider_leaves_messages_to_the_others(
    harness: Harness, sender: SenderFactory
) -> None:
    async with sender(url="http://127.0.0.1:9", failures=1, pause=60):
        refused, *left = [await harness.accept() for _ in range(5)]
        await status_becomes(harness, refused, "retrying")
        async with sender():
            await status_becomes(harness, left[-1], "sent")
    assert [await harness.statuses(request) for request in left] == [["sent"]] * len(left)


async def test_a_provider_that_is_not_there_yet_is_tried_again(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept()
    async with sender(url="http://127.0.0.1:9", delays=(timedelta(seconds=2),) * 4):
        await status_becomes(harness, request, "retrying")
    async with sender():
        await status_becomes(harness, request, "sent")


async def claim_of_a_dead_process(harness: Harness, request: DeliveryRequest) -> None:
    entry = Entry(
        step=step_of(request),
        state=State.CLAIMED,
        at=messages.now() - CLAIM_LEASE,
        provider="generic_sms",
    )
    await harness.ledger.write(request.message.id, entry, after=None)


async def test_what_a_dead_process_had_claimed_is_sent_with_the_same_key(
    harness: Harness, sender: SenderFactory
) -> None:
    request = messages.request()
    await claim_of_a_dead_process(harness, request)
    await harness.accept(request)
    async with sender():
        await status_becomes(harness, request, "sent")


async def test_what_a_dead_process_had_claimed_fails_if_it_might_be_doubled(
    harness: Harness, sender: SenderFactory
) -> None:
    request = messages.request()
    await claim_of_a_dead_process(harness, request)
    await harness.accept(request)
    async with sender(kind=ForgetfulSms, on_ambiguous=OnAmbiguous.FAIL):
        await status_becomes(harness, request, "failed")
    [letter] = await harness.dead_letters()
    assert letter["reason"] == "ambiguous"
    assert (await harness.provider.stats())["requests"] == 0


async def test_what_was_recorded_and_not_announced_is_announced(
    harness: Harness, sender: SenderFactory
) -> None:
    request = messages.request()
    entry = Entry(
        step=step_of(request),
        state=State.RETRYING,
        at=messages.now(),
        provider="generic_sms",
        due=messages.now(),
    )
    await harness.ledger.write(request.message.id, entry, after=None)
    await harness.accept(request)
    async with sender():
        await status_becomes(harness, request, "sent")
    assert await harness.statuses(request) == ["retrying", "sent"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"\xff", "not_json"), (b"{}", "invalid_event"), (b'{"type": "x.v9"}', "unknown_type")],
)
async def test_poison_goes_to_the_dead_letters_and_the_lane_goes_on(
    harness: Harness, sender: SenderFactory, payload: bytes, reason: str
) -> None:
    request = messages.request()
    subject = f"outbound.sms.0.{request.message.conversation_key}"
    await harness.publisher.publish(Stream.OUTBOUND, Outgoing(subject, None, payload))
    event = messages.accepted(request)
    await harness.publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))
    async with sender():
        await status_becomes(harness, request, "sent")
    [letter] = await harness.dead_letters()
    assert letter["reason"] == reason


async def test_a_conversation_arrives_in_order_from_three_senders(
    harness: Harness, sender: SenderFactory
) -> None:
    requests = [await harness.accept(messages.request(messages.message(body=str(n)))) for n in range(30)]
    async with sender(), sender(), sender():
        await asyncio.gather(*(status_becomes(harness, request, "sent") for request in requests))
    assert [taken["payload"]["body"] for taken in await harness.provider.messages()] == [
        str(number) for number in range(30)
    ]


async def test_a_full_ledger_is_waited_out_however_often_it_refuses(
    harness: Harness, sender: SenderFactory
) -> None:
    jetstream = harness.bus.jetstream
    config = (await jetstream.stream_info("KV_DELIVERIES")).config
    await jetstream.update_stream(config.evolve(max_bytes=1))
    request = await harness.accept()

    async def is_under_way() -> bool:
        lanes = [each for each in CONSUMERS if each.name.startswith("sender-sms")]
        infos = [await jetstream.consumer_info(lane.stream, lane.name) for lane in lanes]
        return sum(info.num_ack_pending or 0 for info in infos) == 1

    async with sender():
        await eventually(is_under_way)
        await asyncio.sleep(1)  # for some refusals; that more of them do no harm is what is tested
        infos = await jetstream.consumers_info(Stream.OUTBOUND)
        assert sum(info.num_redelivered or 0 for info in infos) == 0
        await jetstream.update_stream(config)
        await status_becomes(harness, request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_a_stop_cuts_an_attempt_short_and_leaves_nothing_claimed(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(hang=True, times=1)
    request = await harness.accept()

    async def is_asked() -> bool:
        return (await harness.provider.stats())["requests"] == 1

    async with sender(patience=20):
        await eventually(is_asked)
    record = await harness.ledger.look_up(request.message.id)
    assert record is not None
    assert record.entry.state is State.RETRYING
    async with sender():
        await status_becomes(harness, request, "sent")


async def test_the_delayed_stream_keeps_one_step_of_each_message(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=500, times=4)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "sent")
    assert (await harness.bus.jetstream.stream_info(Stream.DELAYED)).state.messages == 1
