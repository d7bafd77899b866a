"""The possible decisions about a request, and the circumstances on which they depend."""

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.lifecycle.entry import LedgerEntry
from shared.message import DeliveryRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The circumstances in which a process takes a step.

    Attributes:
        lease: the time after which a claim that was not renewed is no longer respected.
        connected_for: how long NATS has been available to this process without interruption.
        honouring_keys: the providers that honour idempotency keys.
        keeps_place: whether the message can wait in its place. Otherwise, it is deferred.
        may_wait: whether the message can wait in the process for its limits. Otherwise, it is deferred soon.
    """

    lease: timedelta
    connected_for: timedelta
    honouring_keys: Container[str]
    keeps_place: bool = False
    may_wait: bool = True


@dataclass(frozen=True, slots=True)
class Ignore:
    """Do nothing: the step was taken long ago."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at this time: another process has claimed the step, and may still be sending."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the recorded entry; the process that recorded it may have died before publishing it."""

    request: DeliveryRequest
    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class Record:
    """Record and publish an entry without making a request to a provider."""

    request: DeliveryRequest
    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class Attempt:
    """Claim the step and try the providers; the one named by `in_doubt_at` may already have the message."""

    request: DeliveryRequest
    in_doubt_at: str | None


Decision = Ignore | Wait | Publish | Record | Attempt
"""The action for a request. The request in it may be newer than the one that was read."""
