"""Messages to groups, which not all providers can send."""

from dataclasses import replace

from shared.channels import MessageType
from shared.lifecycle.interventions import replay
from shared.message import DeliveryRequest
from shared.providers.generic.sms import GENERIC_SMS, GenericSmsAdapter
from shared.providers.registry import create_adapter
from tests import messages
from tests.integration.sender.conftest import DELAYS, Harness, SenderFactory

MEMBERS = ["+18045551231", "+18045551232"]


class AdapterWithoutGroups(GenericSmsAdapter):
    sends_to_groups = False


WITHOUT_GROUPS = replace(GENERIC_SMS, name="without_groups", adapter=AdapterWithoutGroups)


def group() -> DeliveryRequest:
    message = messages.message(to=MEMBERS[0], type=MessageType.MMS)
    return messages.request(message.model_copy(update={"recipients": MEMBERS}))


async def test_a_provider_that_cannot_send_to_groups_is_not_asked(
    harness: Harness, sender: SenderFactory
) -> None:
    second = GENERIC_SMS, create_adapter(GENERIC_SMS, sms_provider_url=harness.provider.url)
    request = await harness.accept(group())
    async with sender(provider=WITHOUT_GROUPS, then=[second]):
        await harness.wait_for_status(request, "sent")

    [accepted] = await harness.provider.messages()
    assert accepted["payload"]["to"] == MEMBERS
    [report] = await harness.reports(request)
    assert report["provider"] == GENERIC_SMS.name


async def test_a_group_that_nobody_can_send_to_waits_for_another_choice_of_providers(
    harness: Harness, sender: SenderFactory
) -> None:
    request = await harness.accept(group())
    async with sender(provider=WITHOUT_GROUPS):
        await harness.wait_for_status(request, "failed")
    [dead_letter] = await harness.dead_letters()
    assert (dead_letter["reason"], dead_letter["attempts"]) == ("no_group_provider", 1)
    assert (await harness.provider.stats())["requests"] == 0

    again = await harness.accept(replay(request, DELAYS[0] * 1_000, messages.now()))
    async with sender():
        await harness.wait_for_status(again, "sent")
