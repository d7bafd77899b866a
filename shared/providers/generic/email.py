from typing import Any

import httpx

from shared.providers.generic.send import GenericProvider
from shared.channels import Channel
from shared.events import Message
from shared.settings import Settings, WebUrl


class GenericEmailSettings(Settings):
    email_provider_url: WebUrl = "http://localhost:8002"


class GenericEmail(GenericProvider):
    """A provider of e-mail."""

    name = "generic_email"
    channel = Channel.EMAIL
    settings = GenericEmailSettings
    id_field = "xillio_id"

    def __init__(self, client: httpx.AsyncClient, settings: GenericEmailSettings) -> None:
        super().__init__(client, settings.email_provider_url)

    def payload(self, message: Message) -> dict[str, Any]:
        payload = super().payload(message)
        return payload if message.subject is None else {**payload, "subject": message.subject}
