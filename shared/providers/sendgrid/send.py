import base64
from collections.abc import Sequence
from typing import Any

import httpx
from pydantic import SecretStr, ValidationInfo, field_validator

from shared.providers import mail
from shared.providers.base import File, Provider, is_provider_id
from shared.providers.http import post, unreadable
from shared.channels import Channel
from shared.events import Message
from shared.settings import Credential, Settings, UnsubscribeSecret, WebUrl


class SendGridSettings(Settings):
    """Settings of SendGrid.

    Attributes:
        public_base_url: where recipients reach the gateway, to unsubscribe.
        unsubscribe_secret: what the links for that are signed with; without it there are none.
    """

    sendgrid_api_key: Credential
    sendgrid_url: WebUrl = "https://api.sendgrid.com"
    public_base_url: WebUrl | None = None
    unsubscribe_secret: UnsubscribeSecret | None = None

    @field_validator("unsubscribe_secret")
    @classmethod
    def _needs_a_place(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is not None and not info.data.get("public_base_url"):
            raise ValueError("needs PUBLIC_BASE_URL, where the links lead to")
        return secret

    @property
    def unsubscribe_links(self) -> mail.UnsubscribeLinks | None:
        if self.public_base_url is None or self.unsubscribe_secret is None:
            return None
        return mail.UnsubscribeLinks(self.public_base_url, self.unsubscribe_secret.get_secret_value())


class SendGrid(Provider):
    """Twilio SendGrid's Mail Send, for e-mail."""

    name = "sendgrid"
    channel = Channel.EMAIL
    settings = SendGridSettings
    honours_idempotency_keys = False
    takes_files = True

    def __init__(self, client: httpx.AsyncClient, settings: SendGridSettings) -> None:
        key = settings.sendgrid_api_key.get_secret_value()
        self._client = client
        self._url = f"{settings.sendgrid_url.rstrip('/')}/v3/mail/send"
        self._headers = {"Authorization": f"Bearer {key}"}
        secrets = (settings.sendgrid_api_key, settings.unsubscribe_secret)
        self._secrets = tuple(secret.get_secret_value() for secret in secrets if secret)
        self._links = settings.unsubscribe_links

    async def send(self, message: Message, files: Sequence[File]) -> str:
        response = await post(
            self._client,
            self._url,
            repeatable=self.honours_idempotency_keys,
            secrets=self._secrets,
            headers=self._headers,
            json=_payload(message, files, self._links),
        )
        provider_message_id = response.headers.get("X-Message-Id")
        if not is_provider_id(provider_message_id):
            raise unreadable(response, secrets=self._secrets)
        return provider_message_id


def _payload(message: Message, files: Sequence[File], links: mail.UnsubscribeLinks | None) -> dict[str, Any]:
    payload = {
        "personalizations": [{"to": [{"email": message.to}]}],
        "from": {"email": message.from_},
        "subject": mail.subject_of(message),
        "content": [{"type": type_, "value": text} for type_, text in mail.parts_of(message)],
        "headers": {**mail.threading_of(message), **(links.headers_of(message) if links else {})},
        # Comes back with every event about the message, of which not all have the id that we are answered.
        "custom_args": {"message_id": str(message.id)},
    }
    if files:
        payload["attachments"] = [_attachment(file) for file in files]
    return payload


def _attachment(file: File) -> dict[str, str]:
    return {
        "content": base64.b64encode(file.content).decode("ascii"),
        "filename": file.name,
        "type": file.type,
        "disposition": "attachment",
    }
