import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus

import pytest
from prometheus_client import REGISTRY

from services.sender.claim import LEASE
from shared.bus.publisher import Outgoing
from shared.bus.topology import CONSUMERS, Stream
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.lifecycle.policy import OnAmbiguous
from shared.message import DeliveryRequest
from shared.providers.base import HttpAnswer, ProviderError, TemporaryError
from shared.providers.generic.sms import GENERIC_SMS, GenericSmsAdapter
from tests import messages
from tests.integration.sender.conftest import DELAYS, WITHOUT_KEYS, Harness, SenderFactory
from tests.waiting import eventually


async def test_the_provider_gets_the_message_with_its_id_as_idempotency_key(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")
    [accepted] = await harness.provider.messages()
    assert accepted["idempotency_key"] == str(request.message.id)
    assert accepted["payload"]["body"] == request.message.body


async def test_a_message_is_sent_once_after_three_500s(harness: Harness, sender: SenderFactory) -> None:
    await harness.provider.behave(status=500, times=3)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")
    assert await harness.statuses(request) == ["retrying", "retrying", "retrying", "sent"]
    assert len(await harness.provider.messages()) == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_retry_after_is_honoured(harness: Harness, sender: SenderFactory, times: int) -> None:
    await harness.provider.behave(status=408, retry_after=2, times=times)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")
    retries = [report for report in await harness.reports(request) if report["status"] == "retrying"]
    [accepted] = await harness.provider.messages()
    assert len(retries) == times
    for retry in retries:
        rejected_at = datetime.fromisoformat(retry["error"]["at"])
        assert datetime.fromisoformat(retry["next_attempt_at"]) >= rejected_at + timedelta(seconds=2)
    last = datetime.fromisoformat(retries[-1]["next_attempt_at"])
    assert datetime.fromisoformat(accepted["accepted_at"]) >= last


async def test_a_provider_that_asks_us_to_wait_uses_up_no_attempt(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=429, retry_after=1, times=2)
    began_at = messages.now()
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")
    waiting, sent = await harness.reports(request)
    assert [(each["status"], each["attempt"]) for each in (waiting, sent)] == [("retrying", 1), ("sent", 1)]
    assert (waiting["error"]["code"], waiting["error"]["status_code"]) == ("http_429", 429)
    assert waiting["error"]["at"] < waiting["next_attempt_at"]
    assert (await harness.provider.stats())["requests"] == 3
    [accepted] = await harness.provider.messages()
    assert datetime.fromisoformat(accepted["accepted_at"]) >= began_at + timedelta(seconds=2)


@pytest.mark.parametrize("behaviour", [{"status": 400}, {"status": 404}, {"html": True}])
async def test_a_rejected_message_is_dead_lettered_at_once(
    harness: Harness, sender: SenderFactory, behaviour: dict[str, object]
) -> None:
    await harness.provider.behave(**behaviour)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "failed")
    [dead_letter] = await harness.dead_letters()
    assert dead_letter["attempts"] == 1
    assert dead_letter["reason"] in {"http_400", "http_404", "unreadable_answer"}
    assert dead_letter["request"]["message"]["id"] == str(request.message.id)
    assert (await harness.provider.stats())["requests"] == 1


async def test_after_the_last_attempt_there_is_a_dead_letter_with_every_error_to_replay(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=503)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "failed")
        [dead_letter] = await harness.dead_letters()
        attempts = len(DELAYS) + 1
        assert dead_letter["attempts"] == attempts
        assert [error["attempt"] for error in dead_letter["errors"]] == list(range(1, attempts + 1))
        assert {error["status_code"] for error in dead_letter["errors"]} == {503}

        await harness.provider.recover()
        await harness.accept(request.model_copy(update={"generation": 1}))
        await harness.wait_for_status(request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_resetting_the_consumers_sends_nothing_twice_and_publishes_nothing_new(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=500, times=2)
    requests = [await harness.accept() for _ in range(5)]
    rejected = await harness.accept(messages.request(expires_at=messages.now() - timedelta(minutes=1)))
    async with sender():
        for request in requests:
            await harness.wait_for_status(request, "sent")
        await harness.wait_for_status(rejected, "expired")
        requested = (await harness.provider.stats())["requests"]
        published = {event["id"] for event in await harness.stored(Stream.EVENTS)}

        await harness.reset_consumers()
        await eventually(harness.is_idle)
    assert (await harness.provider.stats())["requests"] == requested
    assert {event["id"] for event in await harness.stored(Stream.EVENTS)} == published


async def test_a_dead_letter_is_counted_once_however_often_it_is_published(
    harness: Harness, sender: SenderFactory
) -> None:
    def counted() -> float:
        labels = {"direction": "outbound", "channel": "sms", "reason": "http_422"}
        return REGISTRY.get_sample_value("messaging_dead_letters_total", labels) or 0

    before = counted()
    await harness.provider.behave(status=422)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "failed")
        await eventually(harness.is_idle)
        await harness.reset_consumers()
        await eventually(harness.is_idle)
    assert counted() == before + 1


async def test_an_expired_message_is_never_sent(harness: Harness, sender: SenderFactory) -> None:
    request = await harness.accept(messages.request(expires_at=messages.now() - timedelta(minutes=1)))
    async with sender():
        await harness.wait_for_status(request, "expired")
        await eventually(harness.is_idle)
    assert (await harness.provider.stats())["requests"] == 0
    assert await harness.statuses(request) == ["expired"]
    assert [dead_letter["reason"] for dead_letter in await harness.dead_letters()] == ["expired"]


@pytest.mark.parametrize("behaviour", [{"ambiguous": True}, {"drop_connection": True}, {"hang": True}])
async def test_a_request_without_an_answer_is_repeated_with_the_same_key(
    harness: Harness, sender: SenderFactory, behaviour: dict[str, object]
) -> None:
    await harness.provider.behave(**behaviour, times=1)
    request = await harness.accept()
    async with sender(timeout=1.0):
        await harness.wait_for_status(request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_a_request_without_an_answer_or_key_is_not_repeated_if_so_configured(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(ambiguous=True)
    request = await harness.accept()
    async with sender(provider=WITHOUT_KEYS, on_ambiguous=OnAmbiguous.FAIL):
        await harness.wait_for_status(request, "failed")
    assert (await harness.provider.stats())["requests"] == 1


async def test_rejected_credentials_defer_messages(harness: Harness, sender: SenderFactory) -> None:
    await harness.provider.behave(status=401, times=1)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "scheduled")
    assert await harness.dead_letters() == []


async def test_a_process_that_reaches_no_provider_leaves_messages_to_others(
    harness: Harness, sender: SenderFactory
) -> None:
    async with sender(url="http://127.0.0.1:9", failures=1, pause=60):
        refused, *left = [await harness.accept() for _ in range(5)]
        await harness.wait_for_status(refused, "retrying")
        async with sender():
            await harness.wait_for_status(left[-1], "sent")
    assert [await harness.statuses(request) for request in left] == [["sent"]] * len(left)


async def test_an_unreachable_provider_is_tried_again(harness: Harness, sender: SenderFactory) -> None:
    request = await harness.accept()
    async with sender(url="http://127.0.0.1:9", delays=(timedelta(seconds=2),) * 4):
        await harness.wait_for_status(request, "retrying")
    async with sender():
        await harness.wait_for_status(request, "sent")


class ThrottlingAdapter(GenericSmsAdapter):
    def explain(self, error: ProviderError, answer: HttpAnswer) -> ProviderError:
        if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
            return error
        return TemporaryError(error.code, str(error), status_code=answer.status, throttled=True)


THROTTLING = replace(GENERIC_SMS, adapter=ThrottlingAdapter)


async def test_a_throttled_message_keeps_its_place_and_uses_up_no_attempt(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=429, times=3)
    requests = [await harness.accept(messages.request(messages.message(body=str(n)))) for n in range(3)]
    async with sender(provider=THROTTLING, delays=()):
        for request in requests:
            await harness.wait_for_status(request, "sent")
    assert [accepted["payload"]["body"] for accepted in await harness.provider.messages()] == ["0", "1", "2"]
    for request in requests:
        statuses = await harness.statuses(request)
        assert statuses in (["sent"], ["retrying", "sent"])
        assert [report["attempt"] for report in await harness.reports(request)] == [1] * len(statuses)
    assert (await harness.provider.stats())["requests"] == 6


async def test_an_attempt_that_fails_after_the_provider_asked_us_to_wait_is_reported_as_well(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=429)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "retrying")
        await harness.provider.behave(status=500, times=1)
        await harness.wait_for_status(request, "sent")

    reports = [(each["status"], each["attempt"]) for each in await harness.reports(request)]
    # The second attempt may be deferred because the provider is paused.
    assert [each for each in reports if each[0] != "scheduled"] == [
        ("retrying", 1),
        ("retrying", 1),
        ("sent", 2),
    ]


async def test_the_next_process_sends_a_released_message_immediately(
    harness: Harness, sender: SenderFactory
) -> None:
    request = messages.request()
    entry = LedgerEntry.of(request, DeliveryState.RELEASED, messages.now(), provider="generic_sms")
    await harness.ledger.write(request.message.id, entry, after=None)
    await harness.accept(request)
    async with sender():
        await harness.wait_for_status(request, "sent")
    assert await harness.statuses(request) == ["sent"]


async def claim_of_a_dead_process(harness: Harness, request: DeliveryRequest) -> None:
    long_ago = messages.now() - LEASE
    entry = LedgerEntry.of(request, DeliveryState.CLAIMED, long_ago, provider="generic_sms")
    await harness.ledger.write(request.message.id, entry, after=None)


async def test_the_claim_of_a_dead_process_is_sent_with_the_same_key(
    harness: Harness, sender: SenderFactory
) -> None:
    request = messages.request()
    await claim_of_a_dead_process(harness, request)
    await harness.accept(request)
    async with sender():
        await harness.wait_for_status(request, "sent")


async def test_the_claim_of_a_dead_process_fails_if_it_might_be_sent_twice(
    harness: Harness, sender: SenderFactory
) -> None:
    request = messages.request()
    await claim_of_a_dead_process(harness, request)
    await harness.accept(request)
    async with sender(provider=WITHOUT_KEYS, on_ambiguous=OnAmbiguous.FAIL):
        await harness.wait_for_status(request, "failed")
    [dead_letter] = await harness.dead_letters()
    assert dead_letter["reason"] == "ambiguous"
    assert (await harness.provider.stats())["requests"] == 0


async def test_a_recorded_outcome_that_was_not_published_is_published(
    harness: Harness, sender: SenderFactory
) -> None:
    request = messages.request()
    now = messages.now()
    entry = LedgerEntry.of(request, DeliveryState.RETRYING, now, provider="generic_sms", due=now)
    await harness.ledger.write(request.message.id, entry, after=None)
    await harness.accept(request)
    async with sender():
        await harness.wait_for_status(request, "sent")
    assert await harness.statuses(request) == ["retrying", "sent"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"\xff", "not_json"), (b"{}", "invalid_event"), (b'{"type": "x.v9"}', "unknown_type")],
)
async def test_an_unreadable_message_is_dead_lettered_and_does_not_block_the_lane(
    harness: Harness, sender: SenderFactory, payload: bytes, reason: str
) -> None:
    request = messages.request()
    subject = f"outbound.sms.0.{request.message.conversation_key}"
    await harness.publisher.publish(Stream.OUTBOUND, Outgoing(subject, None, payload))
    event = messages.accepted(request)
    await harness.publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))
    async with sender():
        await harness.wait_for_status(request, "sent")
    [dead_letter] = await harness.dead_letters()
    assert dead_letter["reason"] == reason


async def test_three_senders_keep_the_order_of_a_conversation(
    harness: Harness, sender: SenderFactory
) -> None:
    requests = [await harness.accept(messages.request(messages.message(body=str(n)))) for n in range(30)]
    async with sender(), sender(), sender():
        await asyncio.gather(*(harness.wait_for_status(request, "sent") for request in requests))
    assert [accepted["payload"]["body"] for accepted in await harness.provider.messages()] == [
        str(number) for number in range(30)
    ]


async def test_a_message_waits_for_a_full_ledger_however_often_it_rejects_writes(
    harness: Harness, sender: SenderFactory
) -> None:
    jetstream = harness.bus.jetstream
    config = (await jetstream.stream_info("KV_DELIVERIES")).config
    await jetstream.update_stream(config.evolve(max_bytes=1))
    request = await harness.accept()

    async def is_in_progress() -> bool:
        lanes = [each for each in CONSUMERS if each.name.startswith("sender-sms")]
        infos = [await jetstream.consumer_info(lane.stream, lane.name) for lane in lanes]
        return sum(info.num_ack_pending or 0 for info in infos) == 1

    async with sender():
        await eventually(is_in_progress)
        await asyncio.sleep(1)  # long enough for several rejected writes, which must be harmless
        infos = await jetstream.consumers_info(Stream.OUTBOUND)
        assert sum(info.num_redelivered or 0 for info in infos) == 0
        await jetstream.update_stream(config)
        await harness.wait_for_status(request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_stopping_interrupts_an_attempt_and_records_it(harness: Harness, sender: SenderFactory) -> None:
    await harness.provider.behave(hang=True, times=1)
    request = await harness.accept()

    async def is_requested() -> bool:
        return (await harness.provider.stats())["requests"] == 1

    async with sender(timeout=20):
        await eventually(is_requested)
    found = await harness.ledger.look_up(request.message.id)
    assert found is not None
    assert found.value.state is DeliveryState.RETRYING
    async with sender():
        await harness.wait_for_status(request, "sent")


async def test_the_delayed_stream_keeps_one_step_of_each_message(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=500, times=4)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "sent")
    assert (await harness.bus.jetstream.stream_info(Stream.DELAYED)).state.messages == 1
