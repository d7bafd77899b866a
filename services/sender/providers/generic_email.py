from typing import Any

from services.sender.providers.generic import GenericProvider
from shared.channels import Channel
from shared.events import Message


class GenericEmail(GenericProvider):
    """A provider of e-mail."""

    name = "generic_email"
    channel = Channel.EMAIL
    id_field = "xillio_id"

    def payload(self, message: Message) -> dict[str, Any]:
        payload = super().payload(message)
        return payload if message.subject is None else {**payload, "subject": message.subject}
