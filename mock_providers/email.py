"""The e-mail provider."""

from mock_providers.contract import Contract, OutboundMessage
from mock_providers.sendgrid.api import sendgrid_api
from mock_providers.sendgrid.webhooks import COURSES
from mock_providers.webhooks import Payload


class EmailMessage(OutboundMessage):
    subject: str | None = None


def _inbound_example(_given: Payload) -> Payload:
    return {
        "from": "customer@example.com",
        "to": "office@example.org",
        "body": "<p>Is tomorrow at nine <b>still</b> free?</p>",
        "attachments": [],
    }


EMAIL = Contract(
    title="Mock e-mail provider",
    id_field="xillio_id",
    id_prefix="email-",
    outbound=EmailMessage,
    webhook_path="/api/webhooks/email",
    inbound_example=_inbound_example,
    real_api=sendgrid_api,
    outcomes=COURSES.keys(),
)
