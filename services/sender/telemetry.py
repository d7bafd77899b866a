"""Reports what happens to messages in the metrics, the log and the trace."""

import structlog

from shared.channels import Direction
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.message import DeliveryRequest
from shared.observability import metrics, tracing

_log = structlog.get_logger()

_LOG_EVENTS = {
    DeliveryState.SENT: "message_sent",
    DeliveryState.RETRYING: "message_retrying",
    DeliveryState.DEFERRED: "message_deferred",
    DeliveryState.FAILED: "message_failed",
    DeliveryState.EXPIRED: "message_expired",
}


def report_failed_attempt(request: DeliveryRequest, entry: LedgerEntry) -> None:
    error = entry.error.model_dump(mode="json") if entry.error else {}
    _log.warning("attempt_failed", message_id=str(request.message.id), **error)


def report_outcome(request: DeliveryRequest, entry: LedgerEntry) -> None:
    """Report the outcome of a step when it is recorded, and not again when a redelivery finds it recorded."""
    _count(request, entry)
    tracing.annotate(provider=entry.provider, outcome=entry.state)
    _log.info(
        _LOG_EVENTS[entry.state],
        message_id=str(request.message.id),
        provider=entry.provider,
        provider_message_id=entry.provider_message_id,
        attempt=request.attempt,
        code=_code(entry),
        due=entry.due and entry.due.isoformat(),
    )


def _count(request: DeliveryRequest, entry: LedgerEntry) -> None:
    message = request.message
    match entry.state:
        case DeliveryState.SENT if request.generation == 0:  # a replay begins long after the acceptance
            waited = entry.at - (message.send_at or message.created_at)
            metrics.DELIVERY_SECONDS.labels(message.channel).observe(waited.total_seconds())
        case DeliveryState.RETRYING:
            metrics.RETRIES.labels(entry.provider, _code(entry)).inc()
        case DeliveryState.DEFERRED if entry.provider:  # without one, the message is scheduled
            metrics.DEFERRALS.labels(entry.provider, _code(entry) or "breaker_open").inc()
        case DeliveryState.FAILED:
            reason = _code(entry) or "failed"
            metrics.DEAD_LETTERS.labels(Direction.OUTBOUND, message.channel, reason).inc()
        case DeliveryState.EXPIRED:
            metrics.EXPIRED.labels(message.channel).inc()
            metrics.DEAD_LETTERS.labels(Direction.OUTBOUND, message.channel, "expired").inc()


def _code(entry: LedgerEntry) -> str | None:
    return entry.error.code if entry.error else None
