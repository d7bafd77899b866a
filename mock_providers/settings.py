import logging
from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


def _level(name: str) -> str:
    level = name.upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


class MockSettings(BaseSettings):
    """Base of all settings: read from the environment, or from `.env` in the current folder."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", arbitrary_types_allowed=True
    )


class Settings(MockSettings):
    """The settings of the process. Each API has its own in its folder."""

    mock_providers_host: str = "127.0.0.1"
    sms_provider_port: Port = 8001
    email_provider_port: Port = 8002
    gateway_url: HttpUrl = HttpUrl("http://127.0.0.1:8080")
    gateway_public_url: HttpUrl | None = None
    log_level: Annotated[str, AfterValidator(_level)] = "INFO"
