from typing import Literal

from pydantic import Field

from mock_providers.generic.api import GenericApi, OutboundMessage
from mock_providers.webhooks import Payload


class EmailMessage(OutboundMessage):
    to: str = Field(min_length=1)
    subject: str | None = None
    from_name: str | None = None
    to_name: str | None = None
    body_type: Literal["html", "text"] | None = None
    text: str | None = None
    reply_to: list[str] | None = None
    cc: list[str] | None = None
    bcc: list[str] | None = None


class GenericEmail(GenericApi):
    """The generic API for e-mail."""

    name = "generic_email"
    id_field = "xillio_id"
    id_prefix = "email-"
    message_model = EmailMessage
    webhook_path = "/api/webhooks/email"

    def example_inbound(self, fields: Payload) -> Payload:  # noqa: ARG002 - only SMS and MMS differ by it
        return {
            "from": "customer@example.com",
            "to": "office@example.org",
            "body": "<p>Is tomorrow at nine <b>still</b> free?</p>",
            "attachments": [],
        }
