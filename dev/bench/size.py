from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The extent of the measurements.

    Attributes:
        rounds: number of rounds; each measures a limit and a figure.
        requests: requests to the gateway in a round.
        ingested: messages for ingest in a round.
        send_seconds: seconds for which the sender is measured in a round.
        posted: requests for the limit of the sender in a round.
        latency_seconds: seconds for which latency is measured, at a constant rate.
        burst: messages that go through all services before their memory is read.
    """

    rounds: int
    requests: int
    ingested: int
    send_seconds: float
    posted: int
    latency_seconds: float
    burst: int


FULL = Size(
    rounds=3, requests=4_000, ingested=20_000, send_seconds=6, posted=3_000, latency_seconds=10, burst=2_000
)
QUICK = Size(
    rounds=1, requests=1_500, ingested=6_000, send_seconds=3, posted=1_000, latency_seconds=3, burst=500
)
