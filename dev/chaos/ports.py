"""The ports of the processes under test."""

from dataclasses import dataclass

from dev.local_stack.ports import free_port, is_free


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports of the processes; for the workers, those of their first processes."""

    gateway: int
    gateway_health: int
    sms: int
    email: int
    nats: int
    postgres: int
    ingest: int
    sender: int
    notifier: int


def free_ports(*, ingests: int, senders: int, notifiers: int) -> Ports:
    """Find free ports for this number of processes."""
    taken: set[int] = set()
    found = []
    for count in (1, 1, 1, 1, 1, 1, ingests, senders, notifiers):
        first = _free_row(count, taken)
        taken.update(range(first, first + count))
        found.append(first)
    gateway, gateway_health, sms, email, nats, postgres, ingest, sender, notifier = found
    return Ports(
        gateway=gateway,
        gateway_health=gateway_health,
        sms=sms,
        email=email,
        nats=nats,
        postgres=postgres,
        ingest=ingest,
        sender=sender,
        notifier=notifier,
    )


def _free_row(count: int, taken: set[int]) -> int:
    """Return the first of `count` consecutive free ports."""
    while True:
        first = free_port(taken)
        row = range(first, first + count)
        if taken.isdisjoint(row) and all(map(is_free, row)):
            return first
