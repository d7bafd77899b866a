"""Webhook endpoints of applications: their configuration, and the deliveries to them."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, Field

from shared.channels import Channel
from shared.ids import EndpointId
from shared.message import FrozenModel
from shared.notifications import Notification, NotificationFilter
from shared.webhook_attempts import Trigger

SECRET_OVERLAP = timedelta(hours=24)
"""How long webhooks are also signed with the former secret after a rotation."""

MAX_SECRETS = 5
"""Secrets that an endpoint has at the same time."""


class DisabledReason(StrEnum):
    """The reason why an endpoint is disabled.

    Attributes:
        REQUESTED: by the API.
        GONE: the endpoint responded with 410.
        FAILING: the endpoint has done nothing but fail for days.
    """

    REQUESTED = "requested"
    GONE = "gone"
    FAILING = "failing"


class StoredSecret(FrozenModel):
    """A signing secret.

    Attributes:
        ciphertext: the encrypted secret.
        expires_at: the time after which webhooks are not signed with it; None for the current secret.
    """

    ciphertext: str
    expires_at: AwareDatetime | None = None


class WebhookEndpoint(FrozenModel):
    """The configuration of an endpoint.

    Attributes:
        event_types: the types of events that are sent; all if it is empty.
        channels: only events of these channels are sent; all if it is empty.
        addresses: only events of these addresses of ours are sent, by their keys; all if it is empty.
        secrets: the current secret first.
        after: only events after this sequence of NOTIFICATIONS are sent. It changes when the endpoint is
            enabled again, and what was waiting before is then ignored.
        disabled_reason: None while the endpoint is enabled.
        is_deleted: whether the entry only remembers that the endpoint was deleted.
        request_digest: of the request that created the endpoint, if it had an `Idempotency-Key`.
    """

    id: EndpointId
    url: str
    event_types: list[str] = Field(default_factory=list)
    channels: list[Channel] = Field(default_factory=list)
    addresses: list[str] = Field(default_factory=list)
    description: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    secrets: list[StoredSecret]
    after: int
    enabled_at: AwareDatetime
    disabled_reason: DisabledReason | None = None
    disabled_at: AwareDatetime | None = None
    is_deleted: bool = False
    request_digest: str = ""
    created_at: AwareDatetime
    updated_at: AwareDatetime

    @property
    def is_enabled(self) -> bool:
        return self.disabled_reason is None and not self.is_deleted

    def wants(self, notification: Notification) -> bool:
        """Return whether the endpoint is sent an event."""
        return NotificationFilter(self.event_types, self.channels, self.addresses).selects(notification)

    def secrets_at(self, now: datetime) -> list[StoredSecret]:
        """Return the secrets that webhooks are signed with."""
        return [secret for secret in self.secrets if secret.expires_at is None or secret.expires_at > now]

    def disabled(self, reason: DisabledReason, now: datetime) -> "WebhookEndpoint":
        return self.model_copy(update={"disabled_reason": reason, "disabled_at": now, "updated_at": now})


class Delivery(FrozenModel):
    """An event on its way to an endpoint.

    Attributes:
        sequence: its sequence in NOTIFICATIONS; None for an event that is sent to this endpoint only.
        attempt: the number of the next attempt, from 1.
    """

    notification: Notification
    sequence: int | None
    attempt: int = 1
    trigger: Trigger = Trigger.EVENT


class Positions(FrozenModel):
    """The positions of an endpoint in the streams.

    Attributes:
        after: `WebhookEndpoint.after`; the positions of an endpoint that was enabled again do not count.
        events: the sequence of NOTIFICATIONS up to which every event has had its first attempt.
        events_finished: later events that have had it.
        retries: the sequence of WEBHOOK_RETRIES up to which every attempt that was due is made.
        retries_finished: later attempts that are made.
    """

    after: int
    events: int
    events_finished: list[int] = Field(default_factory=list)
    retries: int = 0
    retries_finished: list[int] = Field(default_factory=list)
