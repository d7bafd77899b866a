from shared.settings import Credential, NonEmpty, ProviderUrl, PublicUrlSettings, SigningCredential


class TwilioSettings(PublicUrlSettings):
    """Settings of Twilio.

    Attributes:
        twilio_auth_token: the account's password, which also signs Twilio's webhooks.
        twilio_messaging_service_sid: the Messaging Service that sends; the number that a message is sent from
            must belong to it.
    """

    twilio_account_sid: Credential | None = None
    twilio_auth_token: SigningCredential | None = None
    twilio_messaging_service_sid: NonEmpty | None = None
    twilio_url: ProviderUrl = "https://api.twilio.com"
