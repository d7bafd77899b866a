"""Prometheus metrics of the three services, declared once so that names and labels agree."""

from prometheus_client import Counter, Gauge, Histogram

ACCEPTED = Counter(
    "messaging_accepted_total", "Messages and webhooks that the gateway accepted", ["channel", "kind"]
)
REFUSED = Counter("messaging_refused_total", "Requests that the gateway refused", ["status"])
HTTP_SECONDS = Histogram(
    "messaging_http_request_seconds",
    "Time to answer a request, in seconds",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

PERSISTED = Counter("messaging_persisted_total", "Events that ingest stored", ["stream"])
PERSIST_SECONDS = Histogram("messaging_persist_batch_seconds", "Time to store a batch, in seconds")
CONSUMER_PENDING = Gauge(
    "messaging_consumer_pending", "Messages that no process was given yet", ["stream", "consumer"]
)
CONSUMER_ACK_PENDING = Gauge(
    "messaging_consumer_ack_pending", "Messages that a process is working on", ["stream", "consumer"]
)

SENT = Counter("messaging_send_attempts_total", "Attempts to send", ["provider", "outcome"])
SEND_SECONDS = Histogram("messaging_send_seconds", "Time a provider took to answer, in seconds", ["provider"])
DELIVERY_SECONDS = Histogram(
    "messaging_accept_to_sent_seconds",
    "Time from acceptance to the provider's acknowledgement, in seconds",
    ["channel"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1_800),
)
BREAKER_OPEN = Gauge("messaging_breaker_open", "1 while no request goes to the provider", ["provider"])
ROUTE_PAUSED = Gauge("messaging_route_paused", "1 while the provider refuses our credentials", ["provider"])

DEAD_LETTERS = Counter(
    "messaging_dead_letters_total", "What was given up", ["direction", "channel", "reason"]
)
