"""Several providers for one channel: which of them gets a message, and that no other one does."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import httpx
import pytest
from structlog.testing import capture_logs

from mock_providers.sms import SMS
from services.sender.delivery import CLAIM_LEASE
from shared.providers.base import File, Provider
from shared.providers.generic.sms import GenericSms, GenericSmsSettings
from shared.providers.twilio.send import Twilio, TwilioSettings
from services.sender.settings import OnAmbiguous
from shared.bus.topology import Stream
from shared.events import DeliveryRequest, Message
from shared.ids import new_message_id
from shared.ledger import Entry, State, step_of
from tests import messages, providers
from tests.integration.sender.conftest import ForgetfulSms, Harness, SenderFactory
from tests.providers import MockProvider
from tests.stand_in import Answer, Asked, StandIn, standing_in
from tests.waiting import eventually

MakeProvider = Callable[[httpx.AsyncClient], Provider]
FAIL = OnAmbiguous.FAIL


class Second(GenericSms):
    name = "second"


class ForgetfulSecond(Second):
    honours_idempotency_keys = False


class KeylessSms(ForgetfulSms):
    """A provider that does take it for a second message: it gets no key at all."""

    async def send(self, message: Message, files: Sequence[File]) -> str:
        return await super().send(message.model_copy(update={"id": new_message_id()}), files)


@pytest.fixture
async def other() -> AsyncIterator[MockProvider]:
    async with providers.running(SMS) as provider:
        yield provider


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with standing_in() as stand_in:
        yield stand_in


def at(provider: MockProvider, kind: type[GenericSms] = Second) -> MakeProvider:
    return lambda client: kind(client, GenericSmsSettings(sms_provider_url=provider.url))


async def status_becomes(harness: Harness, request: DeliveryRequest, status: str) -> None:
    async def has_become() -> bool:
        return status in await harness.statuses(request)

    await eventually(has_become)


async def taken_by(*mocks: MockProvider) -> list[int]:
    return [len(await mock.messages()) for mock in mocks]


async def asked(mock: MockProvider) -> int:
    return (await mock.stats())["requests"]


async def claimed(harness: Harness, request: DeliveryRequest, provider: str) -> None:
    """Leave what a process leaves that died while it sent."""
    long_ago = messages.now() - CLAIM_LEASE
    entry = Entry(step=step_of(request), state=State.CLAIMED, at=long_ago, provider=provider)
    await harness.ledger.write(request.message.id, entry, after=None)


async def test_the_first_provider_gets_everything_while_it_is_well(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    requests = [await harness.accept() for _ in range(5)]
    async with sender(then=[at(other)]):
        for request in requests:
            await status_becomes(harness, request, "sent")
    assert await taken_by(harness.provider, other) == [5, 0]


@pytest.mark.parametrize("behaviour", [{"status": 503}, {"status": 429}])
async def test_the_next_provider_gets_what_comes_while_the_breaker_is_open(
    harness: Harness, sender: SenderFactory, other: MockProvider, behaviour: dict[str, object]
) -> None:
    await harness.provider.behave(**behaviour)
    request = await harness.accept()
    async with sender(then=[at(other)], failures=1, pause=60):
        await status_becomes(harness, request, "sent")
    assert await harness.statuses(request) == ["retrying", "sent"]
    assert await taken_by(harness.provider, other) == [0, 1]


async def test_a_provider_that_is_not_there_has_nothing_so_the_next_may(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    request = await harness.accept()
    async with sender(
        kind=ForgetfulSms, url="http://127.0.0.1:9", then=[at(other)], failures=1, pause=60, on_ambiguous=FAIL
    ):
        await status_becomes(harness, request, "sent")
    assert await taken_by(other) == [1]


async def test_with_refused_credentials_the_next_provider_is_asked_at_once(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(status=401)
    request = await harness.accept()
    async with sender(then=[at(other)]):
        await status_becomes(harness, request, "sent")
    assert await harness.statuses(request) == ["sent"]
    assert await taken_by(harness.provider, other) == [0, 1]


async def test_while_no_provider_is_well_messages_wait(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(status=401)
    await other.behave(status=401)
    request = await harness.accept()
    async with sender(then=[at(other)]):
        await status_becomes(harness, request, "scheduled")
    assert [await asked(mock) for mock in (harness.provider, other)] == [1, 1]
    assert await harness.dead_letters() == []


@pytest.mark.parametrize("failures", [1, 100], ids=["its breaker opens", "it answers 500 then"])
async def test_what_a_provider_with_keys_may_have_stays_with_it(
    harness: Harness, sender: SenderFactory, other: MockProvider, failures: int
) -> None:
    await harness.provider.behave(ambiguous=True, times=1)
    request = await harness.accept()
    async with sender(then=[at(other)], failures=failures):
        await status_becomes(harness, request, "retrying")
        await harness.provider.behave(status=500, times=1)
        await status_becomes(harness, request, "sent")
    assert await taken_by(harness.provider, other) == [1, 0]


@pytest.mark.parametrize("first", [Second, ForgetfulSecond])
async def test_it_stays_with_it_whoever_is_the_first_after_a_restart(
    harness: Harness, sender: SenderFactory, other: MockProvider, first: type[Second]
) -> None:
    await harness.provider.behave(hang=True, times=1)
    request = await harness.accept()

    async def is_asked() -> bool:
        return await asked(harness.provider) == 1

    async with sender(patience=20):
        await eventually(is_asked)
    async with sender(kind=first, url=other.url, then=[at(harness.provider, GenericSms)]):
        await status_becomes(harness, request, "sent")
    assert await taken_by(harness.provider, other) == [1, 0]


async def test_it_stays_with_it_even_when_its_dead_letter_is_replayed(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(ambiguous=True)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "failed")
    await harness.provider.recover()
    [letter] = await harness.dead_letters()
    replayed = DeliveryRequest.model_validate({**letter["request"], "generation": 1, "attempt": 1, "errors": []})
    await harness.accept(replayed)
    async with sender(kind=Second, url=other.url, then=[at(harness.provider, GenericSms)]):
        await status_becomes(harness, request, "sent")
    assert await taken_by(harness.provider, other) == [1, 0]


@pytest.mark.parametrize(
    ("failures", "expected"), [(100, [2, 0]), (1, [1, 1])], ids=["while it is well", "while it is not"]
)
async def test_what_a_provider_without_keys_may_have_is_resent_if_so_set(
    harness: Harness, sender: SenderFactory, other: MockProvider, failures: int, expected: list[int]
) -> None:
    await harness.provider.behave(ambiguous=True, times=1)
    request = await harness.accept()
    async with sender(kind=KeylessSms, then=[at(other)], failures=failures, pause=60):
        await status_becomes(harness, request, "sent")
    assert await taken_by(harness.provider, other) == expected


async def test_what_a_provider_without_keys_may_have_goes_nowhere_else_if_so_set(
    harness: Harness, sender: SenderFactory, other: MockProvider
) -> None:
    await harness.provider.behave(ambiguous=True, times=1)
    request = await harness.accept()
    async with sender(kind=KeylessSms, then=[at(other)], failures=1, pause=60, on_ambiguous=FAIL):
        await status_becomes(harness, request, "failed")
    assert await taken_by(harness.provider, other) == [1, 0]


@pytest.mark.parametrize(
    ("claimant", "on_ambiguous", "status", "expected"),
    [
        (Second, FAIL, "sent", [0, 1]),
        (ForgetfulSecond, OnAmbiguous.RESEND, "sent", [0, 1]),
        (ForgetfulSecond, FAIL, "failed", [0, 0]),
    ],
)
async def test_a_claim_of_a_dead_process_is_its_providers_business(
    harness: Harness,
    sender: SenderFactory,
    other: MockProvider,
    claimant: type[Second],
    on_ambiguous: OnAmbiguous,
    status: str,
    expected: list[int],
) -> None:
    request = messages.request()
    await claimed(harness, request, claimant.name)
    await harness.accept(request)
    async with sender(then=[at(other, claimant)], on_ambiguous=on_ambiguous):
        await status_becomes(harness, request, status)
    assert await taken_by(harness.provider, other) == expected


@pytest.mark.parametrize(
    ("on_ambiguous", "status", "expected"), [(OnAmbiguous.RESEND, "sent", 1), (FAIL, "failed", 0)]
)
async def test_a_provider_that_is_no_longer_named_counts_as_one_without_keys(
    harness: Harness, sender: SenderFactory, on_ambiguous: OnAmbiguous, status: str, expected: int
) -> None:
    request = messages.request()
    await claimed(harness, request, "gone")
    await harness.accept(request)
    async with sender(on_ambiguous=on_ambiguous):
        await status_becomes(harness, request, status)
    assert await taken_by(harness.provider) == [expected]


ACCOUNT, TOKEN = "ACfeedfeedfeedfeed", "f00dfeedf00dfeedf00dfeed"
SECRETS = {"twilio_account_sid": ACCOUNT, "twilio_auth_token": TOKEN}


def twilio(url: str) -> MakeProvider:
    return lambda client: Twilio(client, TwilioSettings.model_validate({"twilio_url": url, **SECRETS}))


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
    def echo(asked: Asked) -> Answer:
        return Answer(answer.status, body=f"{asked}, {SECRETS}".encode(), ending=answer.ending)

    stand_in.answer = echo
    await harness.provider.behave(status=401)  # so that Twilio, which comes second, is asked at once
    request = await harness.accept()
    with capture_logs() as logs:
        async with sender(then=[twilio(stand_in.url)]):
            await status_becomes(harness, request, status)
    basic = stand_in.asked[0].headers["authorization"].removeprefix("Basic ")
    streams = [await harness.stored(stream) for stream in Stream]
    record = await harness.ledger.look_up(request.message.id)
    said = f"{logs} {json.dumps(streams)} {record}"
    assert "attempt_failed" in said
    assert "twilio" in said
    assert [secret for secret in (ACCOUNT, TOKEN, basic) if secret in said] == []


def test_entries_of_an_older_release_are_read() -> None:
    old: Mapping[str, object] = {"step": (0, 1, 0), "state": "retrying", "at": messages.now().isoformat()}
    entry = Entry.model_validate_json(json.dumps(old))
    assert entry.may_be_at is None
