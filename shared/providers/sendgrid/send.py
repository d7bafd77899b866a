import base64
import re
from collections.abc import Sequence
from email.utils import quote
from typing import Any

from shared.addresses import Address
from shared.message import Message
from shared.providers import mail
from shared.providers.base import Adapter, File, HttpAnswer, HttpRequest
from shared.providers.sendgrid.settings import SendGridSettings

_SPECIALS = re.compile(r'[()<>\[\]:;@\\,"]')


class SendGridAdapter(Adapter[SendGridSettings]):
    """Sends e-mail through Twilio SendGrid's Mail Send API."""

    honours_idempotency_keys = False
    takes_files = True

    def __init__(self, settings: SendGridSettings) -> None:
        if settings.sendgrid_api_key is None:
            raise ValueError("SENDGRID_API_KEY is required to send")
        key = settings.sendgrid_api_key.get_secret_value()
        self._url = f"{settings.sendgrid_url.rstrip('/')}/v3/mail/send"
        self._headers = {"Authorization": f"Bearer {key}"}
        secrets = (settings.sendgrid_api_key, settings.unsubscribe_secret)
        self.secrets = tuple(secret.get_secret_value() for secret in secrets if secret)
        self._links = _unsubscribe_links(settings)
        self._group = settings.sendgrid_unsubscribe_group

    def request(self, message: Message, files: Sequence[File]) -> HttpRequest:
        payload = _payload(message, files, self._links)
        if self._group is not None:
            payload["asm"] = {"group_id": self._group}
        return HttpRequest.json(self._url, payload, self._headers)

    def message_id(self, answer: HttpAnswer) -> object:
        return answer.headers.get("x-message-id")


def _unsubscribe_links(settings: SendGridSettings) -> mail.UnsubscribeLinks | None:
    if settings.unsubscribe_secret is None:
        return None
    if settings.public_base_url is None:
        raise ValueError("UNSUBSCRIBE_SECRET needs PUBLIC_BASE_URL, which the links point to")
    return mail.UnsubscribeLinks(settings.public_base_url, settings.unsubscribe_secret.get_secret_value())


def _payload(message: Message, files: Sequence[File], links: mail.UnsubscribeLinks | None) -> dict[str, Any]:
    copies = {
        name: [_recipient(each.spelling, each.name) for each in addresses]
        for name, addresses in (("cc", message.cc), ("bcc", message.bcc))
        if addresses
    }
    # All recipients get the same headers, and the link is only for the first one.
    links = None if copies else links
    payload: dict[str, Any] = {
        "personalizations": [{"to": [_recipient(message.to, message.to_name)], **copies}],
        "from": _mailbox(message.from_, message.from_name),
        "subject": mail.subject_of(message),
        "content": [{"type": type_, "value": text} for type_, text in mail.parts_of(message)],
        "headers": {**mail.threading_of(message), **(links.headers_of(message) if links else {})},
        # SendGrid returns this with every event about the message, unlike the id in its response.
        "custom_args": {"message_id": str(message.id)},
        **_reply_to(message.reply_to),
    }
    if copies:
        payload["custom_args"]["recipient"] = mail.ascii_address(message.to)
    if files:
        payload["attachments"] = [_attachment(file) for file in files]
    return payload


def _mailbox(address: str, name: str | None) -> dict[str, str]:
    return {"email": mail.ascii_address(address), **({"name": name} if name else {})}


def _recipient(address: str, name: str | None) -> dict[str, str]:
    # SendGrid does not quote the names of recipients, and would send the e-mail to a part of such a name.
    return _mailbox(address, f'"{quote(name)}"' if name and _SPECIALS.search(name) else name)


def _reply_to(addresses: Sequence[Address]) -> dict[str, Any]:
    """Return the field that SendGrid expects for one address, or for several."""
    match [_mailbox(address.spelling, address.name) for address in addresses]:
        case []:
            return {}
        case [mailbox]:
            return {"reply_to": mailbox}
        case mailboxes:
            return {"reply_to_list": mailboxes}


def _attachment(file: File) -> dict[str, str]:
    return {
        "content": base64.b64encode(file.content).decode("ascii"),
        "filename": file.name,
        "type": file.type,
        "disposition": "attachment",
    }
