"""Attempts to deliver events to the webhook endpoints of applications."""

from enum import StrEnum

from pydantic import AwareDatetime

from shared.ids import EndpointId, EventId
from shared.message import FrozenModel

MAX_EXCERPT = 1024
"""Characters of a response that are stored with an attempt."""


class Trigger(StrEnum):
    """The cause of a delivery: an event, or a request to the API."""

    EVENT = "event"
    RETRY = "retry"
    RECOVERY = "recovery"
    TEST = "test"


class WebhookAttempt(FrozenModel):
    """A request to an endpoint, and its outcome.

    Attributes:
        attempt: the number of the attempt, from 1.
        status_code: the status of the response; None if there was none.
        error: a short code of the failure; None after a success.
        response: the beginning of the response, or else the details of the failure.
        next_attempt_at: the time of the next attempt; None if there is none.
    """

    id: EventId
    endpoint_id: EndpointId
    event_id: EventId
    event_type: str
    sequence: int | None = None
    attempt: int
    trigger: Trigger
    started_at: AwareDatetime
    duration_ms: int
    succeeded: bool
    status_code: int | None = None
    error: str | None = None
    response: str = ""
    next_attempt_at: AwareDatetime | None = None
