"""Twilio's Programmable Messaging, for SMS and MMS."""

from shared.channels import Channel
from shared.providers.base import Provider
from shared.providers.twilio.receive import NAME, WEBHOOKS
from shared.providers.twilio.send import TwilioAdapter
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
)
