from typing import Any

import httpx

from shared.providers.generic.send import GenericProvider
from shared.channels import Channel
from shared.events import Message
from shared.settings import Settings, WebUrl


class GenericSmsSettings(Settings):
    sms_provider_url: WebUrl = "http://localhost:8001"


class GenericSms(GenericProvider):
    """A provider of SMS and MMS."""

    name = "generic_sms"
    channel = Channel.SMS
    settings = GenericSmsSettings
    id_field = "messaging_provider_id"

    def __init__(self, client: httpx.AsyncClient, settings: GenericSmsSettings) -> None:
        super().__init__(client, settings.sms_provider_url)

    def payload(self, message: Message) -> dict[str, Any]:
        return {**super().payload(message), "type": message.type}
