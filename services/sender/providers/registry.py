"""Which providers there are: an adapter is one file and one line here."""

from collections.abc import Callable

import httpx

from services.sender.providers.base import Provider
from services.sender.providers.generic_email import GenericEmail
from services.sender.providers.generic_sms import GenericSms
from services.sender.settings import SenderSettings

Factory = Callable[[SenderSettings, httpx.AsyncClient], Provider]

PROVIDERS: dict[str, Factory] = {
    GenericSms.name: lambda settings, client: GenericSms(client, settings.sms_provider_url),
    GenericEmail.name: lambda settings, client: GenericEmail(client, settings.email_provider_url),
}
