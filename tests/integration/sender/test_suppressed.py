"""Recipients who have opted out are not sent any messages."""

from dataclasses import replace
from datetime import timedelta

import pytest

from shared.bus.suppression_list import SuppressionList
from shared.channels import Channel
from shared.providers.base import OPTED_OUT, HttpAnswer, ProviderError, RejectedError
from shared.providers.generic.sms import GENERIC_SMS, GenericSmsAdapter
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages
from tests.integration.sender.conftest import Harness, SenderFactory
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
async def test_a_message_accepted_before_the_opt_out_fails_without_a_request(
    harness: Harness, sender: SenderFactory, ours: str | None
) -> None:
    request = await harness.accept()
    await change(harness.suppressions, SuppressionState.OPTED_OUT, ours=ours)
    async with sender():
        await harness.wait_for_status(request, "failed")
    assert (await harness.provider.stats())["requests"] == 0
    [dead_letter] = await harness.dead_letters()
    assert (dead_letter["reason"], dead_letter["errors"][0]["provider"]) == ("opted_out", None)


async def test_a_retry_after_the_opt_out_is_not_sent(harness: Harness, sender: SenderFactory) -> None:
    await harness.provider.behave(status=408, retry_after=1, times=1)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "retrying")
        await change(harness.suppressions, SuppressionState.OPTED_OUT)
        await harness.wait_for_status(request, "failed")
    assert await harness.provider.messages() == []


async def test_a_replay_checks_again(harness: Harness, sender: SenderFactory) -> None:
    await change(harness.suppressions, SuppressionState.OPTED_OUT)
    request = await harness.accept()
    async with sender():
        await harness.wait_for_status(request, "failed")
        await harness.accept(request.model_copy(update={"generation": 1}))
        await harness.wait_for_status(request, "failed")
        await change(harness.suppressions, SuppressionState.OPTED_IN)
        await harness.accept(request.model_copy(update={"generation": 2}))
        await harness.wait_for_status(request, "sent")
    assert len(await harness.provider.messages()) == 1


async def test_a_scheduled_message_is_not_sent(harness: Harness, sender: SenderFactory) -> None:
    request = await harness.accept(scheduled(timedelta(seconds=1.5)))
    async with sender():
        await harness.wait_for_status(request, "scheduled")
        await change(harness.suppressions, SuppressionState.OPTED_OUT)
        await harness.wait_for_status(request, "failed")
    assert (await harness.provider.stats())["requests"] == 0


class OptOutAdapter(GenericSmsAdapter):
    """The adapter of a provider that rejects messages because the recipient has opted out there."""

    def explain(self, error: ProviderError, answer: HttpAnswer) -> ProviderError:
        return RejectedError(OPTED_OUT, str(error), status_code=answer.status)


KNOWS_OPT_OUT = replace(GENERIC_SMS, adapter=OptOutAdapter)


async def test_an_opt_out_known_to_the_provider_applies_to_the_next_message(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=400, times=1)
    request = await harness.accept()
    async with sender(provider=KNOWS_OPT_OUT):
        await harness.wait_for_status(request, "failed")
    known = await harness.suppressions.suppression_of(request.message)
    assert known is not None
    assert (known.source, known.detail, known.ours) == (SuppressionSource.PROVIDER, "generic_sms", ALICE)

    other = await harness.accept()
    async with sender():
        await harness.wait_for_status(other, "failed")
    assert (await harness.provider.stats())["requests"] == 1


async def test_an_opt_out_from_the_group_of_a_provider_applies_to_all_its_senders(
    harness: Harness, sender: SenderFactory
) -> None:
    harness.suppressions.groups = {GENERIC_SMS.name: "generic_sms:1"}
    await harness.provider.behave(status=400, times=1)
    request = await harness.accept()
    async with sender(provider=KNOWS_OPT_OUT):
        await harness.wait_for_status(request, "failed")

    other = messages.message(from_="+12015550000")
    known = await harness.suppressions.suppression_of(other)
    assert known is not None
    assert (known.source, known.ours) == (SuppressionSource.PROVIDER, "generic_sms:1")


async def test_a_repeated_report_of_the_provider_does_not_revoke_a_later_opt_in(
    harness: Harness, sender: SenderFactory
) -> None:
    await harness.provider.behave(status=400, times=1)
    request = await harness.accept()
    async with sender(provider=KNOWS_OPT_OUT):
        await harness.wait_for_status(request, "failed")
        await change(harness.suppressions, SuppressionState.OPTED_IN)
        await harness.reset_consumers()
        await eventually(harness.is_idle)
    assert await harness.suppressions.suppression_of(request.message) is None
