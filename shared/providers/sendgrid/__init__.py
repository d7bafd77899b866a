"""Twilio SendGrid, for e-mail."""

from shared.channels import Channel
from shared.providers.base import Provider
from shared.providers.sendgrid.events import EVENTS, opt_out_group_of
from shared.providers.sendgrid.inbound import INBOUND, NAME
from shared.providers.sendgrid.send import SendGridAdapter
from shared.providers.sendgrid.settings import SendGridSettings
from shared.providers.sendgrid.signature import HEADER, check_headers
from shared.providers.webhooks import SignatureScheme

SENDGRID = Provider(
    name=NAME,
    channel=Channel.EMAIL,
    settings=SendGridSettings,
    required_to_send=("sendgrid_api_key",),
    adapter=SendGridAdapter,
    webhooks=(INBOUND, EVENTS),
    signature=SignatureScheme(
        name="SendgridSignature",
        header=HEADER,
        description="SendGrid's signature of the timestamp and the body.",
        check_headers=check_headers,
        verifier=lambda settings: (
            settings.sendgrid_webhook_public_key.verify if settings.sendgrid_webhook_public_key else None
        ),
    ),
    opt_out_group=lambda settings: opt_out_group_of(settings.sendgrid_unsubscribe_group),
)
