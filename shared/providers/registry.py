"""Which providers there are: an adapter is one file and one line here."""

from shared.providers.base import Provider
from shared.providers.generic.email import GenericEmail
from shared.providers.generic.sms import GenericSms
from shared.providers.sendgrid.send import SendGrid
from shared.providers.twilio.send import Twilio

PROVIDERS: dict[str, type[Provider]] = {
    GenericSms.name: GenericSms,
    GenericEmail.name: GenericEmail,
    Twilio.name: Twilio,
    SendGrid.name: SendGrid,
}
