from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The extent of the measurements.

    Attributes:
        messages: messages at full load, for each cost.
        rates: further rates in messages per second at which costs are measured.
        steady_seconds: seconds at each of these rates.
        limit_requests: requests for each limit.
        copied: rows for the limit of PostgreSQL.
        senders: numbers of sender processes.
        latencies: latencies of the provider in milliseconds.
        send_seconds: seconds for which throughput is measured.
        latency_seconds: seconds for which latency is measured.
        retained: messages of which the memory in nats-server is measured.
        visits: visits of the page, with and without a cache.
    """

    messages: int
    rates: tuple[float, ...]
    steady_seconds: float
    limit_requests: int
    copied: int
    senders: tuple[int, ...]
    latencies: tuple[int, ...]
    send_seconds: float
    latency_seconds: float
    retained: int
    visits: int


FULL = Size(
    messages=6_000,
    rates=(500, 150),
    steady_seconds=10,
    limit_requests=3_000,
    copied=20_000,
    senders=(1, 2, 4),
    latencies=(20, 300, 2_000),
    send_seconds=6,
    latency_seconds=10,
    retained=100_000,
    visits=15,
)
QUICK = Size(
    messages=1_500,
    rates=(150,),
    steady_seconds=3,
    limit_requests=1_000,
    copied=10_000,
    senders=(1, 2),
    latencies=(300,),
    send_seconds=3,
    latency_seconds=3,
    retained=40_000,
    visits=5,
)
