"""Prometheus metrics of the three services, declared once so that names and labels agree."""

from prometheus_client import Counter, Gauge, Histogram

READY = Gauge("messaging_ready", "1 while the service can do its work, as /readyz says")

ACCEPTED = Counter(
    "messaging_accepted_total",
    "What the gateway accepted, by kind: send, replay, webhook or receipt",
    ["channel", "kind"],
)
RECEIPTS = Counter("messaging_receipts_total", "Delivery receipts, by what they say", ["channel", "status"])
SUPPRESSION_CHANGES = Counter(
    "messaging_suppression_changes_total",
    "Opt-outs and opt-ins, by what made them",
    ["channel", "state", "source"],
)
SUPPRESSED = Counter(
    "messaging_suppressed_total",
    "Sends that the gateway refused since their recipient has opted out",
    ["channel"],
)
REFUSED = Counter("messaging_refused_total", "Requests that the gateway refused", ["status"])
WEBHOOKS_REFUSED = Counter(
    "messaging_webhooks_refused_total",
    "Webhooks without a valid signature, and events in others that were not taken",
    ["provider", "reason"],
)
HTTP_SECONDS = Histogram(
    "messaging_http_request_seconds",
    "Time to answer a request, in seconds",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

PERSISTED = Counter(
    "messaging_persisted_total", "Events that ingest stored, repetitions included", ["stream"]
)
PERSIST_SECONDS = Histogram("messaging_persist_batch_seconds", "Time to store a batch, in seconds")
CONSUMER_PENDING = Gauge(
    "messaging_consumer_pending",
    "Messages that no process was given yet; NaN if unknown",
    ["stream", "consumer"],
)
CONSUMER_ACK_PENDING = Gauge(
    "messaging_consumer_ack_pending",
    "Messages that a process is working on; NaN if unknown",
    ["stream", "consumer"],
)

SENT = Counter("messaging_send_attempts_total", "Attempts to send", ["provider", "outcome"])
SEND_SECONDS = Histogram("messaging_send_seconds", "Time a provider took to answer, in seconds", ["provider"])
DELIVERY_SECONDS = Histogram(
    "messaging_accept_to_sent_seconds",
    "Time from acceptance to the provider's acknowledgement with all retries, replays excepted, in seconds",
    ["channel"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1_800),
)
RETRIES = Counter("messaging_retries_total", "Attempts that are to be made again", ["provider", "code"])
DEFERRALS = Counter(
    "messaging_deferrals_total",
    "Messages put off without an attempt spent: breaker_open, or what paused the route",
    ["provider", "code"],
)
EXPIRED = Counter("messaging_expired_total", "Messages whose time to be sent was over", ["channel"])
BREAKER_OPEN = Gauge(
    "messaging_breaker_open", "1 from when the provider is left alone until it answers again", ["provider"]
)
ROUTE_PAUSED = Gauge(
    "messaging_route_paused",
    "1 from when the provider refuses our credentials until it takes them",
    ["provider"],
)

DEAD_LETTERS = Counter(
    "messaging_dead_letters_total",
    "What was given up, by each service that did so",
    ["direction", "channel", "reason"],
)
