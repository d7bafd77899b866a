"""The generic provider of e-mail."""

from typing import Any, Literal

from pydantic import Field

from shared.channels import Channel
from shared.message import Message
from shared.providers.base import Provider
from shared.providers.generic.receive import (
    SIGNATURE,
    InboundPayload,
    ReceiptId,
    ReceiptPayload,
    Received,
    documented,
    documented_message,
    message_parser,
    receipt_parser,
    respond_to_message,
    respond_to_receipt,
)
from shared.providers.generic.send import GenericAdapter
from shared.providers.generic.settings import GenericEmailSettings
from shared.providers.webhooks import Webhook
from shared.validation import Email, ProviderId, Subject

_NAME = "generic_email"


class EmailWebhook(InboundPayload):
    """An e-mail that was sent to us."""

    model_config = documented_message(
        {
            "from": "[user@usehatchapp.com](mailto:user@usehatchapp.com)",
            "to": "contact@gmail.com",
            "xillio_id": "message-2",
            "body": "<p>Hello!</p>",
            "attachments": ["https://example.com/offer.pdf"],
        }
    )

    from_: Email = Field(alias="from")
    to: Email
    type: Literal["email"] = "email"
    subject: Subject | None = None
    provider_message_id: ProviderId = Field(alias="xillio_id")


class EmailReceipt(ReceiptPayload):
    """A delivery receipt for an e-mail that the provider had accepted."""

    model_config = documented({"xillio_id": "EM1", "status": "bounced", "error_code": "mailbox_unknown"})

    provider_message_id: ReceiptId = Field(alias="xillio_id")


class GenericEmailAdapter(GenericAdapter[GenericEmailSettings]):
    id_field = "xillio_id"

    def __init__(self, settings: GenericEmailSettings) -> None:
        self.url = settings.email_provider_url

    def payload(self, message: Message) -> dict[str, Any]:
        payload = super().payload(message)
        return payload if message.subject is None else {**payload, "subject": message.subject}


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
