from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: of a limit and a figure each.
        requests: to the gateway, a round.
        ingested: messages for ingest, a round.
        send_seconds: that the sender is watched, a round.
        posted: requests of the sender's limit, a round.
        latency_seconds: of a steady trickle.
        burst: messages through everything, before memory is looked at.
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
