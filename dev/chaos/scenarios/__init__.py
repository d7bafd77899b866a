"""The scenarios, grouped by subject, and the order in which they are played."""

from dev.chaos.scenarios import kills, partitions, poison, providers, senders, servers

SCENARIOS = (
    poison.SCENARIO,
    *providers.SCENARIOS,
    *servers.SCENARIOS,
    *senders.SCENARIOS,
    *partitions.SCENARIOS,
    *kills.SCENARIOS,
)
