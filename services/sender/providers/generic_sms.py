from typing import Any

from services.sender.providers.generic import GenericProvider
from shared.channels import Channel
from shared.events import Message


class GenericSms(GenericProvider):
    """A provider of SMS and MMS."""

    name = "generic_sms"
    channel = Channel.SMS
    id_field = "messaging_provider_id"

    def payload(self, message: Message) -> dict[str, Any]:
        return {**super().payload(message), "type": message.type}
