"""Who has opted out is sent nothing."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from shared.providers.base import File, RejectedError
from shared.providers.generic.sms import GenericSms
from shared.channels import Channel
from shared.suppressions import SuppressionList
from shared.events import SuppressionChange, SuppressionSource, SuppressionState, Message
from tests import messages
from tests.integration.sender.conftest import Harness, SenderFactory
from tests.integration.sender.test_delivery import status_becomes
from tests.integration.sender.test_scheduled import scheduled
from tests.messages import ALICE, BOB
from tests.waiting import eventually


async def change(suppressions: SuppressionList, state: SuppressionState, *, ours: str | None = ALICE) -> None:
    await suppressions.record(
        SuppressionChange(
            channel=Channel.SMS,
            ours=ours,
            theirs=BOB,
            state=state,
            source=SuppressionSource.KEYWORD,
            occurred_at=messages.now(),
        )
    )


@pytest.mark.parametrize("ours", [ALICE, None])
async def test_what_was_accepted_before_fails_and_nobody_is_asked(
    harness: Harness, sender: SenderFactory, ours: str | None
) -> None:
    request = await harness.accept()
    await change(harness.suppressions, SuppressionState.OPTED_OUT, ours=ours)
    async with sender():
        await status_becomes(harness, request, "failed")
    assert (await harness.provider.stats())["requests"] == 0
    [letter] = await harness.dead_letters()
    assert (letter["reason"], letter["errors"][0]["provider"]) == ("opted_out", None)


async def test_a_retry_that_comes_due_after_it_is_not_sent(harness: Harness, sender: SenderFactory) -> None:
    await harness.provider.behave(status=503, retry_after=1, times=1)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "retrying")
        await change(harness.suppressions, SuppressionState.OPTED_OUT)
        await status_becomes(harness, request, "failed")
    assert await harness.provider.messages() == []


async def test_a_replay_asks_again(harness: Harness, sender: SenderFactory) -> None:
    await change(harness.suppressions, SuppressionState.OPTED_OUT)
    request = await harness.accept()
    async with sender():
        await status_becomes(harness, request, "failed")
        await harness.accept(request.model_copy(update={"generation": 1}))
        await status_becomes(harness, request, "failed")
        await change(harness.suppressions, SuppressionState.OPTED_IN)
        await harness.accept(request.model_copy(update={"generation": 2}))
        await status_becomes(harness, request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_a_message_that_waits_for_its_time_is_not_sent(harness: Harness, sender: SenderFactory) -> None:
    request = await harness.accept(scheduled(timedelta(seconds=1.5)))
    async with sender():
        await status_becomes(harness, request, "scheduled")
        await change(harness.suppressions, SuppressionState.OPTED_OUT)
        await status_becomes(harness, request, "failed")
    assert (await harness.provider.stats())["requests"] == 0


class KnowingSms(GenericSms):
    """A provider that knows of an opt-out before us."""

    async def send(self, message: Message, files: Sequence[File]) -> str:  # noqa: ARG002 - as its base has it
        raise RejectedError("opted_out", "21610", status_code=400)


async def test_what_a_provider_knows_holds_for_the_next_message(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept()
    async with sender(kind=KnowingSms):
        await status_becomes(harness, request, "failed")
    known = await harness.suppressions.suppression_of(request.message)
    assert known is not None
    assert (known.source, known.detail, known.ours) == (SuppressionSource.PROVIDER, "generic_sms", ALICE)

    other = await harness.accept()
    async with sender():
        await status_becomes(harness, other, "failed")
    assert (await harness.provider.stats())["requests"] == 0


async def test_what_a_provider_knew_is_told_again_and_takes_back_nothing(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept()
    async with sender(kind=KnowingSms):
        await status_becomes(harness, request, "failed")
        await change(harness.suppressions, SuppressionState.OPTED_IN)
        await harness.reset_consumers()
        await eventually(harness.is_idle)
    assert await harness.suppressions.suppression_of(request.message) is None
