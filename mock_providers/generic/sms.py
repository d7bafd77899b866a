from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mock_providers.generic.api import GenericApi, OutboundMessage
from mock_providers.webhooks import Payload

Number = Annotated[str, Field(min_length=1)]


class SmsMessage(OutboundMessage):
    to: Number | Annotated[list[Number], Field(min_length=2, description="The members of a group")]
    type: Literal["sms", "mms"]

    @model_validator(mode="after")
    def _require_mms_for_group(self) -> Self:
        if isinstance(self.to, list) and self.type != "mms":
            raise ValueError("only an mms can be sent to a group")
        return self


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
            "type": "mms" if fields.get("attachments") or isinstance(fields.get("to"), list) else "sms",
            "body": "Is tomorrow at nine still free?",
            "attachments": None,
        }
