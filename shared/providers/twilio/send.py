import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx

from shared.providers.base import (
    CredentialsError,
    File,
    Provider,
    ProviderError,
    RejectedError,
    is_provider_id,
)
from shared.providers.http import object_of, post, unreadable
from shared.channels import Channel
from shared.events import Message
from shared.settings import Credential, NonEmpty, Settings, WebUrl

_OPTED_OUT = 21610
_NOT_FOUND = 20404
_CODES = range(10_000, 100_000)


class TwilioSettings(Settings):
    """Settings of Twilio.

    Attributes:
        twilio_messaging_service_sid: of the Messaging Service that is to send; it has to have the number that
            a message is from.
        public_base_url: where Twilio reaches the gateway, to report what became of a message.
    """

    twilio_account_sid: Credential
    twilio_auth_token: Credential
    twilio_messaging_service_sid: NonEmpty | None = None
    twilio_url: WebUrl = "https://api.twilio.com"
    public_base_url: WebUrl | None = None


class Twilio(Provider):
    """Twilio's Programmable Messaging, for SMS and MMS."""

    name = "twilio"
    channel = Channel.SMS
    settings = TwilioSettings
    honours_idempotency_keys = False
    takes_files = False

    def __init__(self, client: httpx.AsyncClient, settings: TwilioSettings) -> None:
        account = settings.twilio_account_sid.get_secret_value()
        token = settings.twilio_auth_token.get_secret_value()
        basic = base64.b64encode(f"{account}:{token}".encode()).decode()
        self._client = client
        self._url = f"{settings.twilio_url.rstrip('/')}/2010-04-01/Accounts/{quote(account)}/Messages.json"
        self._headers = {"Authorization": f"Basic {basic}"}
        self._secrets = (basic, token, account)
        self._always = _always(settings)

    async def send(self, message: Message, files: Sequence[File]) -> str:  # noqa: ARG002 - it fetches URLs
        response = await post(
            self._client,
            self._url,
            repeatable=self.honours_idempotency_keys,
            secrets=self._secrets,
            explain=_explain,
            headers=self._headers,
            data={**self._always, **_form(message)},
        )
        sid = object_of(response, secrets=self._secrets).get("sid")
        if not is_provider_id(sid):
            raise unreadable(response, secrets=self._secrets)
        return sid


def _always(settings: TwilioSettings) -> dict[str, Any]:
    """Make what is the same in the requests for all messages."""
    form = {}
    if settings.twilio_messaging_service_sid:
        form["MessagingServiceSid"] = settings.twilio_messaging_service_sid
    if settings.public_base_url:
        form["StatusCallback"] = f"{settings.public_base_url.rstrip('/')}/api/webhooks/twilio/status"
    return form


def _form(message: Message) -> dict[str, Any]:
    form: dict[str, Any] = {"From": message.from_, "To": message.to}
    if message.body:
        form["Body"] = message.body
    if message.attachments:
        form["MediaUrl"] = message.attachments
    return form


def _explain(error: ProviderError, response: httpx.Response) -> ProviderError:
    """Name a refusal by Twilio's code for it, and tell whom it is about.

    Codes that begin with 20 are about the account and the request as such. With any other, a 401 or 403
    refuses this one message, and others may pass; while a 404 means that there is no such account.
    """
    code = _code_in(response)
    if code is None or not isinstance(error, RejectedError | CredentialsError):
        return error
    kind: type[ProviderError] = type(error)
    if code == _NOT_FOUND:
        kind = CredentialsError
    elif code // 1000 != _NOT_FOUND // 1000:
        kind = RejectedError
    name = "opted_out" if code == _OPTED_OUT else f"twilio_{code}"
    return kind(name, str(error), status_code=error.status_code)


def _code_in(response: httpx.Response) -> int | None:
    try:
        code = response.json()["code"]
    except (ValueError, TypeError, LookupError):
        return None
    return code if isinstance(code, int) and code in _CODES else None
