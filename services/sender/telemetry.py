"""Tells operators what became of a request: in the metrics, the log and the trace."""

import structlog

from shared.observability import tracing
from shared.observability import metrics
from shared.channels import Direction
from shared.events import DeliveryRequest
from shared.ledger import Entry, State

_log = structlog.get_logger()


def note(request: DeliveryRequest, entry: Entry) -> None:
    """Note what was recorded just now; a redelivery, which finds it recorded, is not to be noted again."""
    _count(request, entry)
    tracing.annotate(provider=entry.provider, outcome=entry.state)
    _log.info(
        f"message_{entry.state}",
        message_id=str(request.message.id),
        provider=entry.provider,
        provider_message_id=entry.provider_message_id,
        attempt=request.attempt,
        code=_code(entry),
        due=entry.due and entry.due.isoformat(),
    )


def _count(request: DeliveryRequest, entry: Entry) -> None:
    channel = request.message.channel
    match entry.state:
        case State.SENT if request.generation == 0:  # a replay begins long after its message was accepted
            message = request.message
            waited = entry.at - (message.send_at or message.created_at)
            metrics.DELIVERY_SECONDS.labels(channel).observe(waited.total_seconds())
        case State.RETRYING:
            metrics.RETRIES.labels(entry.provider, _code(entry)).inc()
        case State.DEFERRED if entry.provider:  # otherwise it waits for its time, not for a provider
            metrics.DEFERRALS.labels(entry.provider, _code(entry) or "breaker_open").inc()
        case State.FAILED:
            metrics.DEAD_LETTERS.labels(Direction.OUTBOUND, channel, _code(entry) or "failed").inc()
        case State.EXPIRED:
            metrics.EXPIRED.labels(channel).inc()


def _code(entry: Entry) -> str | None:
    return entry.error.code if entry.error else None
