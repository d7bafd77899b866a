from pydantic import Field

from mock_providers.settings import MockSettings


class TwilioSettings(MockSettings):
    """The one account that exists. Its auth token is the password, and the key of all signatures."""

    twilio_account_sid: str = "AC" + "0" * 32
    twilio_auth_token: str = Field("mock-auth-token", repr=False)
