"""Twilio's Programmable Messaging, for SMS and MMS."""

from shared.channels import Channel
from shared.providers.base import Provider
from shared.providers.twilio.receive import NAME, WEBHOOKS, opt_out_group_of
from shared.providers.twilio.send import TwilioAdapter, media_credentials
from shared.providers.twilio.settings import TwilioSettings
from shared.providers.twilio.signature import SIGNATURE

TWILIO = Provider(
    name=NAME,
    channel=Channel.SMS,
    settings=TwilioSettings,
    required_to_send=("twilio_account_sid", "twilio_auth_token"),
    adapter=TwilioAdapter,
    webhooks=WEBHOOKS,
    signature=SIGNATURE,
    opt_out_group=lambda settings: opt_out_group_of(settings.twilio_messaging_service_sid),
    media_credentials=media_credentials,
)
