"""Which providers there are: an adapter is one file and one line here."""

from services.sender.providers.base import Provider
from services.sender.providers.generic_email import GenericEmail
from services.sender.providers.generic_sms import GenericSms
from services.sender.providers.sendgrid import SendGrid
from services.sender.providers.twilio import Twilio

PROVIDERS: dict[str, type[Provider]] = {
    GenericSms.name: GenericSms,
    GenericEmail.name: GenericEmail,
    Twilio.name: Twilio,
    SendGrid.name: SendGrid,
}
