from typing import Annotated

from pydantic import BeforeValidator, Field

from mock_providers.generic.signature import decode_secret
from mock_providers.settings import MockSettings


class GenericSettings(MockSettings):
    """Settings of the generic APIs. Webhooks are not signed without a secret."""

    webhook_secret: Annotated[bytes, BeforeValidator(decode_secret)] | None = Field(None, repr=False)
