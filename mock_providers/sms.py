"""The SMS and MMS provider."""

from typing import Literal

from mock_providers.contract import Contract, OutboundMessage
from mock_providers.twilio.api import twilio_api
from mock_providers.twilio.webhooks import COURSES
from mock_providers.webhooks import Payload


class SmsMessage(OutboundMessage):
    type: Literal["sms", "mms"]


def _inbound_example(given: Payload) -> Payload:
    return {
        "from": "+12025550123",
        "to": "+12025550187",
        "type": "mms" if given.get("attachments") else "sms",
        "body": "Is tomorrow at nine still free?",
        "attachments": None,
    }


SMS = Contract(
    title="Mock SMS/MMS provider",
    id_field="messaging_provider_id",
    id_prefix="sms-",
    outbound=SmsMessage,
    webhook_path="/api/webhooks/sms",
    inbound_example=_inbound_example,
    real_api=twilio_api,
    outcomes=COURSES.keys(),
)
