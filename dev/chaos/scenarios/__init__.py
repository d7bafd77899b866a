"""The scenarios, grouped by subject, and the order in which they are played."""

from dev.chaos.scenarios import kills, logs, partitions, poison, providers, senders, servers, stores

SCENARIOS = (
    poison.SCENARIO,
    *providers.SCENARIOS,
    *servers.SCENARIOS,
    *senders.SCENARIOS,
    *partitions.SCENARIOS,
    *logs.SCENARIOS,
    *stores.SCENARIOS,
    *kills.SCENARIOS,
)
