"""The generic provider of SMS and MMS."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from shared.channels import Channel, MessageType
from shared.message import Message
from shared.providers.base import Provider
from shared.providers.fields import ReadId, ReadPhone, ReadPhones, ReadText
from shared.providers.generic.receive import (
    SIGNATURE,
    InboundPayload,
    ReceiptId,
    ReceiptPayload,
    Received,
    documented,
    message_parser,
    receipt_parser,
    respond_to_message,
    respond_to_receipt,
)
from shared.providers.generic.send import GenericAdapter
from shared.providers.generic.settings import GenericSmsSettings
from shared.providers.webhooks import Webhook

_NAME = "generic_sms"
_TYPE = WithJsonSchema({"type": "string", "enum": [MessageType.SMS, MessageType.MMS]})


class SmsWebhook(InboundPayload):
    """An SMS or MMS that was sent to us."""

    model_config = documented(
        {
            "from": "+18045551234",
            "to": "+12016661234",
            "type": "sms",
            "messaging_provider_id": "message-1",
            "body": "Hello!",
            "attachments": None,
        }
    )

    from_: ReadPhone = Field(default=None, alias="from")
    to: ReadPhones
    type: Annotated[ReadText, _TYPE] = Field(default_factory=str)
    provider_message_id: ReadId = Field(default=None, alias="messaging_provider_id")


class SmsReceipt(ReceiptPayload):
    """A delivery receipt for an SMS or MMS that the provider had accepted."""

    model_config = documented({"messaging_provider_id": "SM1", "status": "delivered"})

    provider_message_id: ReceiptId = Field(alias="messaging_provider_id")


class GenericSmsAdapter(GenericAdapter[GenericSmsSettings]):
    id_field = "messaging_provider_id"
    sends_to_groups = True

    def __init__(self, settings: GenericSmsSettings) -> None:
        self.url = settings.sms_provider_url

    def payload(self, message: Message) -> dict[str, Any]:
        """Add the type, and all recipients of a message to a group."""
        to = message.recipients or message.to
        return {**super().payload(message), "to": to, "type": message.type}


GENERIC_SMS = Provider(
    name=_NAME,
    channel=Channel.SMS,
    settings=GenericSmsSettings,
    adapter=GenericSmsAdapter,
    signature=SIGNATURE,
    webhooks=(
        Webhook(
            name="receive_sms",
            path="sms",
            summary="Receive an SMS or MMS",
            body=SmsWebhook,
            parse=message_parser(_NAME, Channel.SMS, SmsWebhook),
            respond=respond_to_message,
            response=Received,
        ),
        Webhook(
            name="report_sms",
            path="sms/status",
            summary="Receive the delivery receipt of an SMS or MMS",
            body=SmsReceipt,
            parse=receipt_parser(_NAME, Channel.SMS, SmsReceipt),
            respond=respond_to_receipt,
            response=Received,
        ),
    ),
)
