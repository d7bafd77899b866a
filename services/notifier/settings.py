from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveFloat
from pydantic_settings import NoDecode

from shared.endpoint_secrets import EndpointKeySettings
from shared.settings import DatabaseSettings, WorkerSettings

_HOUR = 3_600.0
DEFAULT_RETRY_DELAYS = (5.0, 300.0, 1_800.0, *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 24)))
"""Seconds; three days in total."""


def _split_numbers(value: Any) -> Any:  # noqa: ANN401 - whatever is given
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


class NotifierSettings(WorkerSettings, DatabaseSettings, EndpointKeySettings):
    """Settings of the notifier.

    Attributes:
        webhook_retry_delays: seconds between one attempt to deliver an event and the next; there is one more
            attempt than there are delays.
        webhook_timeout: seconds that an endpoint has to respond.
    """

    webhook_retry_delays: Annotated[tuple[PositiveFloat, ...], NoDecode, BeforeValidator(_split_numbers)] = (
        DEFAULT_RETRY_DELAYS
    )
    webhook_timeout: float = Field(default=15, gt=0, le=30)

    @property
    def delays(self) -> tuple[timedelta, ...]:
        return tuple(timedelta(seconds=seconds) for seconds in self.webhook_retry_delays)
