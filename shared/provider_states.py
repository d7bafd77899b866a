"""The state of the providers, which each sender process reports and the gateway shows.

The reports are values in a key-value bucket that expire when their process no longer renews them, so a
process that dies leaves nothing behind.
"""

from datetime import timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from shared.channels import Channel
from shared.message import FrozenModel

REPORT_LIFETIME = timedelta(seconds=15)
"""How long a report is kept if its process does not renew it."""


class ProviderCondition(StrEnum):
    """Whether a process sends messages through a provider.

    Attributes:
        HEALTHY: it sends them.
        OPEN: its circuit breaker is open, because the provider fails.
        PAUSED: the provider has asked it to wait, or rejects our credentials.
    """

    HEALTHY = "healthy"
    OPEN = "open"
    PAUSED = "paused"


class ProviderState(FrozenModel):
    """The state of a provider, as one process sees it.

    Attributes:
        until: the time of the next request, unless the provider is healthy.
        in_progress: the number of messages that are being sent.
        concurrency: the number of messages that may be sent at the same time.
        rate: the limit of requests per second, over all processes; None if there is no limit.
        paused_senders: the number of sending addresses that the provider has asked us to pause.
    """

    name: str
    channel: Channel
    state: ProviderCondition
    until: AwareDatetime | None
    in_progress: int
    concurrency: int
    rate: float | None
    paused_senders: int


class SendingLimit(FrozenModel):
    """A limit that some sending addresses share, over all processes.

    Attributes:
        senders: numbers, e-mail addresses, or `@domain` for all addresses of a domain.
        rate: segments, or e-mails, per second; None if there is no limit.
        per_day: segments, or e-mails, per day (UTC); None if there is no limit.
    """

    name: str
    senders: tuple[str, ...]
    rate: float | None
    per_day: int | None


class SenderReport(FrozenModel):
    """The states of the providers of one sender process, and the limits that it applies."""

    providers: tuple[ProviderState, ...]
    limits: tuple[SendingLimit, ...] = ()
