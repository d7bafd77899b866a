import logging
from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


def _level(name: str) -> str:
    level = name.upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


class MockSettings(BaseSettings):
    """Base of all settings, which are read from the environment alone.

    `.env` may hold the secrets of real providers, which a mock must not know: it signs
    whatever it is asked to.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", arbitrary_types_allowed=True)


class Settings(MockSettings):
    """The settings of the process. Each API has its own in its folder.

    Attributes:
        mock_token: the bearer token that requests under `/mock` need; None leaves them open.
    """

    mock_providers_host: str = "127.0.0.1"
    sms_provider_port: Port = 8001
    email_provider_port: Port = 8002
    gateway_url: HttpUrl = HttpUrl("http://127.0.0.1:8080")
    gateway_public_url: HttpUrl | None = None
    mock_token: SecretStr | None = None
    log_level: Annotated[str, AfterValidator(_level)] = "INFO"
