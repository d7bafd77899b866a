"""The APIs that each channel serves. To add one, write its folder and add a line here."""

from mock_providers.api import Channel
from mock_providers.generic.email import GenericEmail
from mock_providers.generic.sms import GenericSms
from mock_providers.sendgrid.api import SendGrid
from mock_providers.twilio.api import Twilio

SMS = Channel(
    "Mock SMS/MMS provider",
    (
        GenericSms,
        Twilio,
    ),
)
EMAIL = Channel(
    "Mock e-mail provider",
    (
        GenericEmail,
        SendGrid,
    ),
)

CHANNELS = {"sms": SMS, "email": EMAIL}
