import logging
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from mock_providers.webhooks import decode_secret

Port = Annotated[int, Field(ge=0, le=65535)]


def _level(name: str) -> str:
    level = name.upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


class Settings(BaseSettings):
    """The environment, or a `.env` in the current folder."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    mock_providers_host: str = "127.0.0.1"
    sms_provider_port: Port = 8001
    email_provider_port: Port = 8002
    gateway_url: HttpUrl = HttpUrl("http://127.0.0.1:8080")
    webhook_secret: Annotated[bytes, BeforeValidator(decode_secret)] | None = Field(None, repr=False)
    log_level: Annotated[str, AfterValidator(_level)] = "INFO"
