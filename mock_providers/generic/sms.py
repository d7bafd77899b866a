from typing import Literal

from mock_providers.generic.api import GenericApi, OutboundMessage
from mock_providers.webhooks import Payload


class SmsMessage(OutboundMessage):
    type: Literal["sms", "mms"]


class GenericSms(GenericApi):
    """The generic API for SMS and MMS."""

    name = "generic_sms"
    id_field = "messaging_provider_id"
    id_prefix = "sms-"
    message_model = SmsMessage
    webhook_path = "/api/webhooks/sms"

    def example_inbound(self, fields: Payload) -> Payload:
        return {
            "from": "+12025550123",
            "to": "+12025550187",
            "type": "mms" if fields.get("attachments") else "sms",
            "body": "Is tomorrow at nine still free?",
            "attachments": None,
        }
