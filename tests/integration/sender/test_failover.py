"""Several providers of one channel: one of them gets each message, and no other."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mock_providers.registry import SMS
from services.sender.claim import LEASE
from shared.bus.topology import Stream
from shared.ids import new_message_id
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.lifecycle.policy import OnAmbiguous
from shared.message import DeliveryRequest, Message
from shared.providers.base import File, HttpRequest, Provider
from shared.providers.generic.sms import GENERIC_SMS
from shared.providers.registry import create_adapter
from shared.providers.twilio import TWILIO
from tests import messages, providers
from tests.integration.sender.conftest import (
    WITHOUT_KEYS,
    AdapterWithoutKeys,
    Harness,
    ProviderAndAdapter,
    SenderFactory,
)
from tests.providers import MockProvider
from tests.stand_in import Answer, ReceivedRequest, StandIn, standing_in
from tests.waiting import eventually

FAIL = OnAmbiguous.FAIL


class OtherKeyAdapter(AdapterWithoutKeys):
    """The adapter of a mock that treats each request as a new message, since the key is never the same."""

    def request(self, message: Message, files: Sequence[File]) -> HttpRequest:
        return super().request(message.model_copy(update={"id": new_message_id()}), files)


SECOND = replace(GENERIC_SMS, name="second")
SECOND_WITHOUT_KEYS = replace(WITHOUT_KEYS, name="second")
OTHER_KEY = replace(GENERIC_SMS, adapter=OtherKeyAdapter)


@pytest.fixture
async def other() -> AsyncIterator[MockProvider]:
    async with providers.running(SMS) as provider:
        yield provider


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with standing_in() as stand_in:
        yield stand_in


def at(mock: MockProvider, provider: Provider[Any] = SECOND) -> ProviderAndAdapter:
    return provider, create_adapter(provider, sms_provider_url=mock.url)


async def accepted_by(*mocks: MockProvider) -> list[int]:
    return [len(await mock.messages()) for mock in mocks]


async def requests_to(mock: MockProvider) -> int:
    return (await mock.stats())["requests"]


async def claim(harness: Harness, request: DeliveryRequest, provider: str) -> None:
    """Write the claim of a process that died while it was sending."""
    long_ago = messages.now() - LEASE
    entry = LedgerEntry.of(request, DeliveryState.CLAIMED, long_ago, provider=provider)
    await harness.ledger.write(request.message.id, entry, after=None)


async def test_the_first_provider_gets_all_messages_while_it_is_healthy(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    requests = [await harness.accept() for _ in range(5)]
    async with sender(then=[at(other)]):
        for request in requests:
            await harness.wait_for_status(request, "sent")
    assert await accepted_by(harness.provider, other) == [5, 0]


@pytest.mark.parametrize(
    ("status", "reported"),
    [(503, ["retrying", "sent"]), (429, ["sent"])],  # a provider that asks us to wait uses up no attempt
)
async def test_the_next_provider_gets_the_messages_while_the_breaker_is_open(
    harness: Harness, sender: SenderFactory, other: MockProvider, status: int, reported: list[str]
) -> None:
    await harness.provider.behave(status=status)
    request = await harness.accept()
    async with sender(then=[at(other)], failures=1, pause=60):
        await harness.wait_for_status(request, "sent")
    assert await harness.statuses(request) == reported
    assert await accepted_by(harness.provider, other) == [0, 1]


async def test_the_next_provider_gets_the_messages_of_an_unreachable_one(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    request = await harness.accept()
    async with sender(
        provider=WITHOUT_KEYS,
        url="http://127.0.0.1:9",
        then=[at(other)],
        failures=1,
        pause=60,
        on_ambiguous=FAIL,
    ):
        await harness.wait_for_status(request, "sent")
    assert await accepted_by(other) == [1]


async def test_the_next_provider_is_tried_at_once_if_credentials_are_rejected(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(status=401)
    request = await harness.accept()
    async with sender(then=[at(other)]):
        await harness.wait_for_status(request, "sent")
    assert await harness.statuses(request) == ["sent"]
    assert await accepted_by(harness.provider, other) == [0, 1]


async def test_messages_are_deferred_while_no_provider_is_healthy(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(status=401)
    await other.behave(status=401)
    request = await harness.accept()
    async with sender(then=[at(other)]):
        await harness.wait_for_status(request, "scheduled")
    assert [await requests_to(mock) for mock in (harness.provider, other)] == [1, 1]
    assert await harness.dead_letters() == []


@pytest.mark.parametrize("failures", [1, 100], ids=["its breaker opens", "it answers 500"])
async def test_a_provider_with_keys_keeps_a_message_that_it_may_have(
    harness: Harness, sender: SenderFactory, other: MockProvider, failures: int
) -> None:
    await harness.provider.behave(ambiguous=True, times=1)
    request = await harness.accept()
    async with sender(then=[at(other)], failures=failures):
        await harness.wait_for_status(request, "retrying")
        await harness.provider.behave(status=500, times=1)
        await harness.wait_for_status(request, "sent")
    assert await accepted_by(harness.provider, other) == [1, 0]


@pytest.mark.parametrize("first", [SECOND, SECOND_WITHOUT_KEYS])
async def test_it_keeps_the_message_even_if_another_provider_is_the_first_after_a_restart(
    harness: Harness, sender: SenderFactory, other: MockProvider, first: Provider[Any]
) -> None:
    await harness.provider.behave(hang=True, times=1)
    request = await harness.accept()

    async def is_requested() -> bool:
        return await requests_to(harness.provider) == 1

    async with sender(timeout=20):
        await eventually(is_requested)
    async with sender(provider=first, url=other.url, then=[at(harness.provider, GENERIC_SMS)]):
        await harness.wait_for_status(request, "sent")
    assert await accepted_by(harness.provider, other) == [1, 0]


async def test_it_keeps_the_message_even_if_its_dead_letter_is_replayed(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(ambiguous=True)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "failed")
    await harness.provider.recover()
    [dead_letter] = await harness.dead_letters()
    replay = {**dead_letter["request"], "generation": 1, "attempt": 1, "errors": []}
    replayed = DeliveryRequest.model_validate(replay)
    await harness.accept(replayed)
    async with sender(provider=SECOND, url=other.url, then=[at(harness.provider, GENERIC_SMS)]):
        await harness.wait_for_status(request, "sent")
    assert await accepted_by(harness.provider, other) == [1, 0]


@pytest.mark.parametrize(
    ("failures", "expected"), [(100, [2, 0]), (1, [1, 1])], ids=["healthy", "breaker open"]
)
async def test_a_message_that_a_provider_without_keys_may_have_is_resent_if_so_configured(
    harness: Harness, sender: SenderFactory, other: MockProvider, failures: int, expected: list[int]
) -> None:
    await harness.provider.behave(ambiguous=True, times=1)
    request = await harness.accept()
    async with sender(provider=OTHER_KEY, then=[at(other)], failures=failures, pause=60):
        await harness.wait_for_status(request, "sent")
    assert await accepted_by(harness.provider, other) == expected


async def test_a_message_that_a_provider_without_keys_may_have_fails_if_so_configured(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(ambiguous=True, times=1)
    request = await harness.accept()
    async with sender(provider=OTHER_KEY, then=[at(other)], failures=1, pause=60, on_ambiguous=FAIL):
        await harness.wait_for_status(request, "failed")
    assert await accepted_by(harness.provider, other) == [1, 0]


@pytest.mark.parametrize(
    ("claimant", "on_ambiguous", "status", "expected"),
    [
        (SECOND, FAIL, "sent", [0, 1]),
        (SECOND_WITHOUT_KEYS, OnAmbiguous.RESEND, "sent", [0, 1]),
        (SECOND_WITHOUT_KEYS, FAIL, "failed", [0, 0]),
    ],
)
async def test_a_claim_of_a_dead_process_is_resolved_by_its_provider(
    harness: Harness,
    sender: SenderFactory,
    other: MockProvider,
    claimant: Provider[Any],
    on_ambiguous: OnAmbiguous,
    status: str,
    expected: list[int],
) -> None:
    request = messages.request()
    await claim(harness, request, claimant.name)
    await harness.accept(request)
    async with sender(then=[at(other, claimant)], on_ambiguous=on_ambiguous):
        await harness.wait_for_status(request, status)
    assert await accepted_by(harness.provider, other) == expected


@pytest.mark.parametrize(
    ("on_ambiguous", "status", "expected"), [(OnAmbiguous.RESEND, "sent", 1), (FAIL, "failed", 0)]
)
async def test_a_provider_that_is_no_longer_chosen_counts_as_one_without_keys(
    harness: Harness, sender: SenderFactory, on_ambiguous: OnAmbiguous, status: str, expected: int
) -> None:
    request = messages.request()
    await claim(harness, request, "gone")
    await harness.accept(request)
    async with sender(on_ambiguous=on_ambiguous):
        await harness.wait_for_status(request, status)
    assert await accepted_by(harness.provider) == [expected]


ACCOUNT, TOKEN = "ACfeedfeedfeedfeed", "f00dfeedf00dfeedf00dfeed"
SECRETS = {"twilio_account_sid": ACCOUNT, "twilio_auth_token": TOKEN}


def twilio(url: str) -> ProviderAndAdapter:
    return TWILIO, create_adapter(TWILIO, twilio_url=url, **SECRETS)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(400), "failed"),
        (Answer(401), "scheduled"),
        (Answer(500), "retrying"),
        (Answer(201), "failed"),
        (Answer(ending="drop"), "retrying"),
    ],
)
async def test_credentials_are_in_no_log_event_or_dead_letter(
    harness: Harness, sender: SenderFactory, stand_in: StandIn, answer: Answer, status: str
) -> None:
    def echo(request: ReceivedRequest) -> Answer:
        return Answer(answer.status, body=f"{request}, {SECRETS}".encode(), ending=answer.ending)

    stand_in.answer = echo
    await harness.provider.behave(status=401)  # so that the message goes to Twilio at once
    request = await harness.accept()
    with capture_logs() as logs:
        async with sender(then=[twilio(stand_in.url)]):
            await harness.wait_for_status(request, status)
    basic = stand_in.requests[0].headers["authorization"].removeprefix("Basic ")
    streams = [await harness.stored(stream) for stream in Stream]
    found = await harness.ledger.look_up(request.message.id)
    output = f"{logs} {json.dumps(streams)} {found}"
    assert "attempt_failed" in output
    assert "twilio" in output
    assert [secret for secret in (ACCOUNT, TOKEN, basic) if secret in output] == []


def test_entries_of_an_older_release_are_read() -> None:
    old: Mapping[str, object] = {"step": (0, 1, 0), "state": "retrying", "at": messages.now().isoformat()}
    entry = LedgerEntry.model_validate_json(json.dumps(old))
    assert entry.may_be_at is None
