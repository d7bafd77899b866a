"""The generic provider of e-mail."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from shared.addresses import Address
from shared.channels import Channel
from shared.message import Message
from shared.providers.base import Provider
from shared.providers.fields import ReadEmail, ReadId
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
from shared.providers.generic.settings import GenericEmailSettings
from shared.providers.mail import ascii_address
from shared.providers.webhooks import Webhook

_NAME = "generic_email"
_MAX_EMAIL = 4 * 1024 * 1024
"""Bytes. Of a longer text, what a stream can hold is kept."""


class EmailWebhook(InboundPayload):
    """An e-mail that was sent to us."""

    model_config = documented(
        {
            "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
            "to": "contact@gmail.com",
            "xillio_id": "message-2",
            "body": "<p>Hello!</p>",
            "attachments": ["https://example.com/offer.pdf"],
        }
    )

    from_: ReadEmail = Field(default=None, alias="from")
    to: ReadEmail
    provider_message_id: ReadId = Field(default=None, alias="xillio_id")


class EmailReceipt(ReceiptPayload):
    """A delivery receipt for an e-mail that the provider had accepted."""

    model_config = documented({"xillio_id": "EM1", "status": "bounced", "error_code": "mailbox_unknown"})

    provider_message_id: ReceiptId = Field(alias="xillio_id")


class GenericEmailAdapter(GenericAdapter[GenericEmailSettings]):
    id_field = "xillio_id"

    def __init__(self, settings: GenericEmailSettings) -> None:
        self.url = settings.email_provider_url

    def payload(self, message: Message) -> dict[str, Any]:
        """Add the optional fields that have a value."""
        optional = {
            "subject": message.subject,
            "from_name": message.from_name,
            "to_name": message.to_name,
            "body_type": message.body_type,
            "text": message.text,
            "reply_to": _mailboxes(message.reply_to),
            "cc": _mailboxes(message.cc),
            "bcc": _mailboxes(message.bcc),
        }
        return {
            **super().payload(message),
            "from": ascii_address(message.from_),
            "to": ascii_address(message.to),
            **{name: value for name, value in optional.items() if value not in (None, [])},
        }


def _mailboxes(addresses: Sequence[Address]) -> list[str]:
    return [Address(ascii_address(each.spelling), each.key, each.name).mailbox for each in addresses]


GENERIC_EMAIL = Provider(
    name=_NAME,
    channel=Channel.EMAIL,
    settings=GenericEmailSettings,
    adapter=GenericEmailAdapter,
    signature=SIGNATURE,
    webhooks=(
        Webhook(
            name="receive_email",
            path="email",
            summary="Receive an e-mail",
            body=EmailWebhook,
            parse=message_parser(_NAME, Channel.EMAIL, EmailWebhook),
            respond=respond_to_message,
            response=Received,
            max_size=_MAX_EMAIL,
        ),
        Webhook(
            name="report_email",
            path="email/status",
            summary="Receive the delivery receipt of an e-mail",
            body=EmailReceipt,
            parse=receipt_parser(_NAME, Channel.EMAIL, EmailReceipt),
            respond=respond_to_receipt,
            response=Received,
        ),
    ),
)
