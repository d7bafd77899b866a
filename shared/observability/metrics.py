"""Prometheus metrics of the services, declared in one place so that names and labels agree."""

from prometheus_client import Counter, Gauge, Histogram

READY = Gauge("messaging_ready", "1 if the service is ready, as reported by /readyz, otherwise 0")
LOG_LINES_DROPPED = Counter(
    "messaging_log_lines_dropped_total",
    "Lines that could not be written to the log: its reader is gone or too slow, or its disk is full",
)

ACCEPTED = Counter(
    "messaging_accepted_total",
    "Requests accepted and stored by the gateway, by kind: send, replay, webhook or receipt",
    ["channel", "kind"],
)
RECEIPTS = Counter(
    "messaging_receipts_total", "Delivery receipts accepted, by the status they report", ["channel", "status"]
)
SUPPRESSION_CHANGES = Counter(
    "messaging_suppression_changes_total",
    "Changes to the suppression list, by the new state and the source of the change",
    ["channel", "state", "source"],
)
SUPPRESSED = Counter(
    "messaging_suppressed_total",
    "Sends rejected by the gateway because the recipient has opted out",
    ["channel"],
)
HTTP_ERRORS = Counter(
    "messaging_http_errors_total",
    "Requests that the gateway answered with a status of 400 or above",
    ["status"],
)
HTTP_REFUSED = Counter(
    "messaging_http_refused_total",
    "Requests and connections that the HTTP server refused or closed, by reason",
    ["reason"],
)
REFUSED = Counter(
    "messaging_refused_total",
    "Requests and webhook events that the gateway refused or could not read, by route and reason",
    ["route", "reason"],
)
HTTP_SECONDS = Histogram(
    "messaging_http_request_duration_seconds",
    "Time the gateway took to respond to a request",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

MEDIA = Counter(
    "messaging_media_total",
    "Attempts to fetch the media of inbound messages, by outcome (stored, retrying or failed) and reason",
    ["provider", "outcome", "reason"],
)

EVENT_STREAMS = Gauge("messaging_event_streams", "Open streams of server-sent events of this gateway")
EVENTS_STREAMED = Counter(
    "messaging_events_streamed_total", "Events sent by this gateway on streams of server-sent events"
)
PERSISTED = Counter(
    "messaging_persisted_total", "Events stored in PostgreSQL by ingest, including duplicates", ["stream"]
)
PERSIST_SECONDS = Histogram(
    "messaging_persist_batch_duration_seconds", "Time ingest took to store a batch of events"
)
NOTIFICATIONS = Counter(
    "messaging_notifications_total", "Events for applications published by ingest, by type", ["type"]
)
OUTBOX_ROWS = Gauge("messaging_outbox_rows", "Events for applications that could not be published yet, or 0")
CONSUMER_PENDING = Gauge(
    "messaging_consumer_pending",
    "Messages not yet delivered to any process; NaN if unknown",
    ["stream", "consumer"],
)
CONSUMER_ACK_PENDING = Gauge(
    "messaging_consumer_ack_pending",
    "Messages delivered to a process but not yet acknowledged; NaN if unknown",
    ["stream", "consumer"],
)
CONSUMER_OLDEST = Gauge(
    "messaging_consumer_oldest_seconds",
    "Age of the oldest message that the consumer has not processed, or 0; NaN if unknown",
    ["stream", "consumer"],
)
CONSUMER_MISSING = Gauge(
    "messaging_consumer_missing",
    "1 if the server does not have the consumer, otherwise 0; NaN if unknown",
    ["stream", "consumer"],
)
LOST = Counter(
    "messaging_lost_total",
    "Messages that a stream dropped before they were delivered to ingest",
    ["stream", "consumer"],
)

SENT = Counter(
    "messaging_send_attempts_total",
    "Attempts to send a message, by outcome: sent, or the error code",
    ["provider", "outcome"],
)
SEND_SECONDS = Histogram(
    "messaging_provider_request_duration_seconds",
    "Time a provider took to respond to a send request",
    ["provider"],
)
DELIVERY_SECONDS = Histogram(
    "messaging_accept_to_sent_seconds",
    "Time from acceptance, or from the scheduled time, until the provider accepted it; excludes replays",
    ["channel"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1_800),
)
RETRIES = Counter(
    "messaging_retries_total", "Failed attempts that will be retried, by error code", ["provider", "code"]
)
DEFERRALS = Counter(
    "messaging_deferrals_total",
    "Messages deferred without using up an attempt, by code: breaker_open, limited, or the provider's error",
    ["provider", "code"],
)
EXPIRED = Counter("messaging_expired_total", "Messages not sent because they had expired", ["channel"])
BREAKER_OPEN = Gauge(
    "messaging_breaker_open",
    "1 while the circuit breaker of the provider is open, otherwise 0",
    ["provider"],
)
PROVIDER_PAUSED = Gauge(
    "messaging_provider_paused",
    "1 while the provider is paused because it rejects our credentials, otherwise 0",
    ["provider"],
)
THROTTLED = Gauge(
    "messaging_throttled",
    "Pauses in effect at the provider's request, for all messages (provider) or a sending address (sender)",
    ["provider", "scope"],
)

WEBHOOK_ENDPOINTS = Gauge(
    "messaging_webhook_endpoints",
    "Webhook endpoints of applications, by state: enabled or disabled",
    ["state"],
)
WEBHOOK_ATTEMPTS = Counter(
    "messaging_webhook_attempts_total",
    "Attempts to deliver an event to an endpoint, by outcome: 2xx to 5xx, or the code of the failure",
    ["outcome"],
)
WEBHOOK_SECONDS = Histogram(
    "messaging_webhook_attempt_duration_seconds",
    "Time that endpoints took to respond",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
WEBHOOK_DELAY = Histogram(
    "messaging_webhook_first_attempt_delay_seconds",
    "Time from the publication of an event until its first attempt; endpoints that are slow wait longer",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3_600),
)
WEBHOOK_GIVEN_UP = Counter(
    "messaging_webhook_given_up_total", "Events that an endpoint has not received after all attempts"
)
WEBHOOK_DISABLED = Counter(
    "messaging_webhook_disabled_total",
    "Endpoints that were disabled, by reason: gone, or failing for days",
    ["reason"],
)

DEAD_LETTERS = Counter(
    "messaging_dead_letters_total",
    "Dead letters published, counted by the service that published them",
    ["direction", "channel", "reason"],
)
