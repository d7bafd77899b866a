import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from shared.message import Message
from shared.providers.base import (
    Adapter,
    CredentialsError,
    File,
    HttpAnswer,
    HttpRequest,
    MediaCredentials,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.providers.twilio import codes
from shared.providers.twilio.settings import TwilioSettings

_RETRIES = "#rc=5&rp=all"
"""Asks Twilio to repeat a callback up to five times after any failure. It is not a part of the signed URL."""


class TwilioAdapter(Adapter[TwilioSettings]):
    """Sends SMS and MMS through Twilio's Programmable Messaging."""

    honours_idempotency_keys = False

    def __init__(self, settings: TwilioSettings) -> None:
        if settings.twilio_account_sid is None or settings.twilio_auth_token is None:
            raise ValueError("TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are required to send")
        account = settings.twilio_account_sid.get_secret_value()
        token = settings.twilio_auth_token.get_secret_value()
        basic = _basic(account, token)
        self.secrets = (basic, token, account)
        self._url = f"{settings.twilio_url.rstrip('/')}/2010-04-01/Accounts/{quote(account)}/Messages.json"
        self._headers = {"Authorization": f"Basic {basic}"}
        self._common_fields = _common_fields(settings)
        base = settings.public_base_url
        self._callback = f"{base.rstrip('/')}/api/webhooks/twilio/status" if base else None

    def request(self, message: Message, files: Sequence[File]) -> HttpRequest:  # noqa: ARG002 - it fetches URLs
        fields = {**self._common_fields, **_fields(message)}
        if self._callback:
            # The receipts then have our id, which matters if the response to this request is lost.
            fields["StatusCallback"] = f"{self._callback}?message_id={message.id}{_RETRIES}"
        return HttpRequest.form(self._url, fields, self._headers)

    def message_id(self, answer: HttpAnswer) -> object:
        return answer.field("sid")

    def explain(self, error: ProviderError, answer: HttpAnswer) -> ProviderError:
        """Return an error with Twilio's code, which concerns either this message or the account.

        Codes that begin with 20 concern the account or the request as such. With any other code, a 401 or 403
        rejects only this message, and others may be accepted. 20404 means that the account does not exist.
        While the queue of a number is full, other numbers are not affected.
        """
        code = answer.field("code")
        if not (isinstance(code, int) and code in codes.ALL):
            return error
        if code in codes.BUSY_NUMBERS and not isinstance(error, UnknownOutcomeError):
            return TemporaryError(
                codes.name_of(code),
                str(error),
                status_code=error.status_code,
                retry_after=error.retry_after,
                throttled=True,
                sender_only=True,
            )
        if not isinstance(error, RejectedError | CredentialsError):
            return error
        kind: type[ProviderError] = type(error)
        if code == codes.NOT_FOUND:
            kind = CredentialsError
        elif code not in codes.ACCOUNT:
            kind = RejectedError
        return kind(codes.name_of(code), str(error), status_code=error.status_code)


def media_credentials(settings: TwilioSettings) -> MediaCredentials | None:
    """Return the credentials with which Twilio's API returns the media of inbound messages."""
    if settings.twilio_account_sid is None or settings.twilio_auth_token is None:
        return None
    account = settings.twilio_account_sid.get_secret_value()
    token = settings.twilio_auth_token.get_secret_value()
    return MediaCredentials(settings.twilio_url, {"Authorization": f"Basic {_basic(account, token)}"})


def _basic(account: str, token: str) -> str:
    return base64.b64encode(f"{account}:{token}".encode()).decode()


def _common_fields(settings: TwilioSettings) -> dict[str, Any]:
    """Return the fields that are the same for all messages."""
    fields = {}
    if settings.twilio_messaging_service_sid:
        fields["MessagingServiceSid"] = settings.twilio_messaging_service_sid
    return fields


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"From": message.from_, "To": message.to}
    if message.body:
        fields["Body"] = message.body
    if message.attachments:
        fields["MediaUrl"] = message.attachments
    return fields
