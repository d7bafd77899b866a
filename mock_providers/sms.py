"""The SMS and MMS provider."""

from typing import Literal

from mock_providers.contract import Contract, OutboundMessage, Payload


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
)
